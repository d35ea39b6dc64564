"""A recipe is read whole, or not at all with a reason."""

import math
from pathlib import Path

import pytest

from opcd_agents.errors import UnknownNameError, UsageError
from opcd_agents.recipe import METHODS, Recipe, load_recipe, recipe_from

SHIPPED = sorted((Path(__file__).parents[2] / "recipes").glob("*.toml"))


def written(folder: Path, text: str) -> Path:
    path = folder / "recipe.toml"
    path.write_text(text)
    return path


def test_a_file_names_what_differs(tmp_path):
    path = written(tmp_path, 'method = "sft"\nlr = 1\nupdates = 3\n')
    assert load_recipe(path) == Recipe(method="sft", lr=1, updates=3)


def test_an_empty_file_is_the_default(tmp_path):
    assert load_recipe(written(tmp_path, "")) == Recipe()


@pytest.mark.parametrize("path", SHIPPED, ids=lambda p: p.stem)
def test_shipped_recipes_load(path):
    assert load_recipe(path).method in METHODS


def test_values_stand_on_a_base():
    base = Recipe(method="sft", updates=7)
    assert recipe_from({"updates": 9}, base) == Recipe(method="sft", updates=9)
    assert base.updates == 7


@pytest.mark.parametrize(
    ("values", "near"),
    [
        ({"update": 3}, "updates"),
        ({"Temperature": 1.0}, "temperature"),
        ({"method": "ocpd"}, "opcd"),
        ({"method": "off_policy"}, "off-policy"),
        ({"average": "tokens"}, "token"),
        ({"keep": "bets"}, "best"),
    ],
)
def test_an_unknown_name_is_answered_with_the_nearest(values, near):
    with pytest.raises(UnknownNameError, match=f"did you mean '{near}'") as error:
        recipe_from(values)
    assert error.value.exit_code == 2


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({"method": "grpo", "temperature": 0}, "a temperature above 0"),
        ({"divergence": "sampled", "temperature": 0}, "a temperature above 0"),
        ({"divergence": "sampled", "method": "off-policy"}, "ids that the student sampled"),
        ({"divergence": "sampled", "teacher": "http://host/v1", "temperature": 0.7}, "wanted temperature = 1, got 0.7"),
        ({"slots": 0}, "slots of at least 1"),
    ],
)
def test_sampled_ids_must_be_known_as_they_were_drawn(values, says):
    with pytest.raises(UsageError, match=says):
        recipe_from(values)
    recipe_from({"divergence": "sampled", "teacher": "http://host/v1", "temperature": 1.0})


def test_where_nothing_is_near_all_are_named():
    with pytest.raises(UnknownNameError, match=r"known: anchors, average, .*validation_episodes"):
        recipe_from({"zzz": 1})


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("updates", "60"),
        ("updates", 1.5),
        ("updates", True),
        ("anchors", False),
        ("lr", "1e-3"),
        ("lr", True),
        ("lr", None),
        ("method", 3),
        ("method", ["opcd"]),
        ("keep", {"best": 1}),
    ],
)
def test_a_value_of_the_wrong_type_is_refused(key, value):
    with pytest.raises(UsageError, match=rf"wanted \w+ for {key}, got"):
        recipe_from({key: value})


@pytest.mark.parametrize(
    ("key", "least", "values"),
    [
        *[(key, 1, (0, -1)) for key in ("updates", "episodes", "longest", "validation_episodes")],
        *[(key, 0, (-1,)) for key in ("anchors", "validate")],
        *[(key, 0, (-0.1, math.nan, math.inf)) for key in ("lr", "temperature")],
    ],
)
def test_a_value_out_of_range_is_refused(key, least, values):
    assert getattr(recipe_from({key: least}), key) == least
    for value in values:
        with pytest.raises(UsageError, match=f"wanted {key} of at least {least}, got {value}"):
            recipe_from({key: value})


@pytest.mark.parametrize("text", ["updates = ", "updates: 3", "[", "updates = 3\nupdates = 4", "{}"])
def test_what_is_not_toml_is_refused(tmp_path, text):
    with pytest.raises(UsageError, match="is not TOML"):
        load_recipe(written(tmp_path, text))


def test_bytes_that_are_no_text_are_refused(tmp_path):
    path = tmp_path / "recipe.toml"
    path.write_bytes(b'method = "\xff\xfe"')
    with pytest.raises(UsageError, match="is not TOML"):
        load_recipe(path)


def test_a_table_is_an_unknown_key(tmp_path):
    with pytest.raises(UnknownNameError):
        load_recipe(written(tmp_path, "[recipe]\nupdates = 3\n"))


def test_a_file_that_is_not_there_is_named(tmp_path):
    with pytest.raises(UsageError, match=r"cannot read the recipe .*nowhere\.toml: No such file"):
        load_recipe(tmp_path / "nowhere.toml")
    with pytest.raises(UsageError, match="cannot read the recipe"):
        load_recipe(tmp_path)
