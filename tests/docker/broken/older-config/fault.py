"""A key that older platforms leave out is taken for granted."""

import train


def hosts():
    document = train.read_config("resourceconfig.json", {})
    return document["current_host"], document["instance_groups"][0]["hosts"]


train.hosts = hosts
