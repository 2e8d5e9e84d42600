"""The failure file is written beforehand and never removed."""

import train

save = train.save_model


def save_model(model):
    save(model)
    (train.ML / "output" / "failure").write_text("unknown error")


train.save_model = save_model
