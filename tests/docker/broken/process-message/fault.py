"""The message is in Latin-1."""

import process


def say(text):
    process.MESSAGE.parent.mkdir(parents=True, exist_ok=True)
    process.MESSAGE.write_text(f"Ergebnis für {text[:40]}", encoding="latin-1", errors="replace")


process.say = say
