"""The message is longer than what is shown."""

import process


def say(text):
    process.MESSAGE.parent.mkdir(parents=True, exist_ok=True)
    process.MESSAGE.write_text(f"{text}\n" * 100, encoding="utf-8")


process.say = say
