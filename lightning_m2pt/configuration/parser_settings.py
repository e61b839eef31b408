"""How every jsonargparse parser of this project reads: strict YAML, nothing from the environment, errors raised."""

from typing import Any

import yaml
from jsonargparse import set_loader

from lightning_m2pt.configuration.strict_yaml import value_of

STRICT_YAML = "strict_yaml"
set_loader(STRICT_YAML, value_of, (yaml.YAMLError, RecursionError))
PARSER: dict[str, Any] = {
    "parser_mode": STRICT_YAML,
    "exit_on_error": False,
    "default_env": False,
    "print_config": None,
}
