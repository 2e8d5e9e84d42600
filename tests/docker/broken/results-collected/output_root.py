"""Predictions are written to /opt/ml/output instead of /opt/ml/output/data."""

import train

save = train.save_model


def save_model(model):
    save(model)
    (train.ML / "output" / "predictions.csv").write_text("1\n")


train.save_model = save_model
