"""How signatures are checked under pytest: as PEP 484 has it, an int will do for a float."""

from beartype import BeartypeConf, beartype

check = beartype(conf=BeartypeConf(is_pep484_tower=True))
