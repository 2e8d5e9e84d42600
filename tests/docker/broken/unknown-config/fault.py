"""Every key of a configuration file must be known."""

import train


def known(current_host, hosts, current_instance_type=None, current_group_name=None,
          instance_groups=None, network_interface_name=None, topology=None):
    return current_host, hosts


train.hosts = lambda: known(**train.read_config("resourceconfig.json", {}))
