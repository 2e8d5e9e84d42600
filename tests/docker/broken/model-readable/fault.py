"""The model can be read by its owner alone."""

import train

save = train.save_model


def save_model(model):
    save(model)
    (train.ML / "model" / "model.json").chmod(0o600)


train.save_model = save_model
