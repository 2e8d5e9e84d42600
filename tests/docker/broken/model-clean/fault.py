"""A desktop system's file comes along with the model."""

import train

save = train.save_model


def save_model(model):
    save(model)
    (train.ML / "model" / "._model.json").write_bytes(b"\0\5\x16\7")


train.save_model = save_model
