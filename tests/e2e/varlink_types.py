"""Holds what svd answers against what its *.varlink files declare, to the letter: no field more, none missing, each of
its type. python3-varlink reads the files; its own clients are more lenient."""

import os

from varlink import scanner

API = os.path.join(os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))), "daemon", "api")


def read(name):
    with open(f"{API}/{name}.varlink", encoding="ascii") as f:
        return scanner.Interface(f.read())


INTERFACES = {name: read(name) for name in ("io.svctl", "io.svctl.sim", "org.varlink.service")}
PLAIN = {bool: bool, int: int, str: str, float: (int, float)}


def member(full_name, kind):
    interface, _, name = full_name.rpartition(".")
    found = INTERFACES[interface].members.get(name)
    assert isinstance(found, kind), f"{full_name} is not declared"
    return INTERFACES[interface], found


def check(interface, declared, value, where):
    if isinstance(declared, scanner._Maybe):
        declared = declared.element_type
    if isinstance(declared, scanner._CustomType):
        declared = interface.members[declared.name].type
    if isinstance(declared, scanner._Array):
        assert isinstance(value, list), f"{where} is {value!r}, not an array"
        for i, item in enumerate(value):
            check(interface, declared.element_type, item, f"{where}[{i}]")
    elif isinstance(declared, scanner._Struct):
        assert isinstance(value, dict), f"{where} is {value!r}, not an object"
        for name in value:
            assert name in declared.fields, f"{where}.{name} is not declared: {value!r}"
        for name, field in declared.fields.items():
            if name in value:
                check(interface, field, value[name], f"{where}.{name}")
            else:
                assert isinstance(field, scanner._Maybe), f"{where}.{name} is missing: {value!r}"
    else:
        good = isinstance(value, PLAIN[type(declared)]) and isinstance(value, bool) == isinstance(declared, bool)
        assert good, f"{where} is {value!r}, not {type(declared).__name__}"


def check_reply(method, reply):
    assert set(reply) <= {"parameters", "error", "continues"}, reply
    if "error" in reply:
        interface, error = member(reply["error"], scanner._Error)
        check(interface, error.type, reply["parameters"], reply["error"])
    else:
        interface, found = member(method, scanner._Method)
        check(interface, found.out_type, reply["parameters"], method)


def methods(interface):
    return {name for name, m in INTERFACES[interface].members.items() if isinstance(m, scanner._Method)}
