"""docs/configuration.md tells every key as it is, its examples load, and the schema beside it is the real one."""

import json
import re
from pathlib import Path

import pytest

from engine.config import parse
from engine.config.jsonschema import json_schema, plain
from engine.config.leaf import LEAVES
from engine.config.schema import Config
from engine.config.shape import choices, is_table, keys, noun
from engine.desired import desired_state
from engine.model import Underlay

DOCS = Path(__file__).parents[3] / "docs"


def tables(struct, name=""):
    """Every table of the file and those inside it: its dotted name and its struct."""
    for key in keys(struct).values():
        if is_table(key.kind):
            yield f"{name}{key.name}", key.kind
            yield from tables(key.kind, f"{name}{key.name}.")


SECTIONS = dict(tables(Config))


def table(name):
    """The rows that the reference has for one table of the file."""
    lines = ["| key | value | default | meaning |", "|---|---|---|---|"]
    for key in keys(SECTIONS[name]).values():
        kind = LEAVES[key.kind].noun if key.kind in LEAVES else noun(key)
        if choices(key.kind):
            kind = ", ".join(f"`{choice}`" for choice in choices(key.kind))
        default = "required" if key.required else "" if key.default is None else f"`{json.dumps(plain(key.default))}`"
        kind = f"list of: {kind}" if key.is_list else kind
        lines.append(f"| `{key.name}` | {kind} | {default} | {key.meta.description} |")
    return "\n".join(lines)


@pytest.fixture(scope="module")
def reference():
    return (DOCS / "configuration.md").read_text()


@pytest.mark.parametrize("name", SECTIONS)
def test_every_key_stands_in_the_reference(reference, name):
    assert table(name) in reference, f"the table of {name} should be:\n{table(name)}"


def examples(text):
    return re.findall(r"```toml\n(.*?)```", text, re.DOTALL)


def test_examples_load_and_compute(reference):
    whole = [example for example in examples(reference) if "[node]" in example]
    assert len(whole) == 2
    for example in whole:
        config = parse(example, hostname="node-a")
        assert desired_state(config.facts(), Underlay()).routes
    assert len(whole[0].split("\n")) <= 8
    pod = '[node]\nprefixes = ["10.0.0.0/24"]\n[[pods]]\nname = "p"\nnamespace = "p"\naddresses = ["10.0.0.2"]\n'
    parts = [example for example in examples(reference) if "[node]" not in example]
    assert len(parts) == 1
    assert parse(pod + parts[0], hostname="a").pods[0].ports[1].pod == 53


def test_sentence_in_the_reference_is_what_is_said(reference):
    (quoted,) = re.findall(r"^    (towpath.toml:12: .*)$", reference, re.MULTILINE)
    text = "\n" * 11 + 'peers = [{ name = "b", underlay = ["192.0.2.2"], prefixes = ["10.244.2.7/24"] }]\n'
    with pytest.raises(Exception, match=re.escape(quoted)):
        parse(text + '[node]\nprefixes = ["10.244.1.0/24"]\n', hostname="a")


def test_schema_in_the_docs_is_the_real_one():
    assert json.loads((DOCS / "towpath.schema.json").read_text()) == json_schema()


# -- the schema itself ---------------------------------------------------------------
def objects(schema):
    """The tables in a schema, outermost first."""
    if schema.get("type") == "object":
        if "properties" not in schema:  # a table of the user's own keys
            return
        yield schema
        for inner in schema["properties"].values():
            yield from objects(inner)
    elif schema.get("type") == "array":
        yield from objects(schema["items"])


def test_schema_is_closed_and_explained():
    found = list(objects(json_schema()))
    assert len(found) == 1 + len(SECTIONS)
    for schema in found:
        assert schema["additionalProperties"] is False
        assert set(schema["required"]) <= set(schema["properties"])
        assert all(inner["description"].endswith(".") for inner in schema["properties"].values())


def test_schema_of_each_kind():
    properties = json_schema()["properties"]
    assert json_schema()["required"] == ["node"]
    assert properties["network"]["properties"]["mtu"] == {
        "type": "integer",
        "minimum": 576,
        "maximum": 65535,
        "description": "Largest packet a pod may send, in bytes; derived from the paths when absent.",
    }
    assert properties["network"]["properties"]["mode"]["enum"] == ["overlay", "routed"]
    assert properties["network"]["properties"]["mode"]["default"] == "overlay"
    assert properties["host"]["properties"]["enabled"]["type"] == "boolean"
    assert properties["workers"]["properties"]["cpus"]["items"] == {"type": "integer"}
    assert properties["peers"]["items"]["required"] == ["name", "underlay"]
    assert properties["node"]["properties"]["prefixes"]["items"] == {"type": "string", "format": "ip-prefix"}
