"""The program archives the model itself."""

import tarfile

import train

save = train.save_model


def save_model(model):
    save(model)
    folder = train.ML / "model"
    with tarfile.open(folder / "model.tar.gz", "w:gz") as archive:
        archive.add(folder / "model.json", "model.json")
    (folder / "model.json").unlink()


train.save_model = save_model
