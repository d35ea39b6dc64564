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


@pytest.mark.parametrize(
    "named",
    [
        {"method": "sft", "divergence": "reverse"},
        {"method": "grpo", "teacher": "ema"},
        {"method": "sft", "support": "student"},
        {"method": "sft", "entry_clip": 0.1},
        {"divergence": "sampled", "support": "student"},
        {"divergence": "sampled", "top_k": 5},
        {"divergence": "sampled", "tail": "truncate"},
        {"divergence": "sampled", "kl_temperature": 0.7},
        {"top_k": 5},
        {"tail": "truncate"},
        {"beta": 0.1},
        {"teacher_rate": 0.5},
        {"teacher": "ema", "teacher_every": 3},
        {"group": 4},
        {"rollouts": "replay", "learn": "answer"},
        {"rollouts": "replay", "learn": "final"},
        {"lora_alpha": 8.0},
        {"hold_target": 0.1},
        {"hold_target": 0.1, "anchors": 4, "hold": 0.0},
    ],
)
def test_a_key_that_would_be_ignored_is_refused(named):
    with pytest.raises(UsageError, match=rf"recipe: ({'|'.join(named)}) = .* means something only with"):
        recipe_from(named)


@pytest.mark.parametrize(
    "named",
    [
        {"divergence": "jsd", "beta": 0.1, "support": "union", "top_k": 5, "tail": "truncate"},
        {"teacher": "trust", "teacher_rate": 0.5},
        {"teacher": "0.5 ema + 0.5 sync", "teacher_rate": 0.5, "teacher_every": 3},
        {"divergence": "sampled", "entry_clip": 2.0, "teacher": "http://host/v1", "temperature": 1.0},
        {"support": "teacher", "teacher": "https://host/v1"},
        {"hold_target": 0.1, "anchors": 4},
        {"lora_rank": 4, "lora_alpha": 1.5},
    ],
)
def test_what_means_something_is_taken(named):
    recipe_from(named)


@pytest.mark.parametrize(
    ("named", "says"),
    [
        ({"teacher": "0.5 frozen +"}, "wanted a teacher such as"),
        ({"teacher": "0.3 frozen"}, "wanted a teacher such as"),
        ({"teacher": "0 frozen + 1 ema"}, "weights above 0"),
        ({"teacher": ""}, "wanted a teacher such as"),
        ({"teacher": "two words"}, "wanted a teacher such as"),
        ({"teacher": "0.5 frozen + 0.5 trust"}, "single models in a sum of teachers, got 'trust'"),
        (
            {"teacher": "frozen + http://host/v1", "divergence": "sampled"},
            "single models in a sum of teachers, got 'http",
        ),
        ({"teacher": "frozen + ema", "method": "off-policy"}, "because it plays"),
        ({"teacher": "trust", "method": "off-policy"}, "because it plays"),
        ({"teacher": "trust", "lora_rank": 2}, "lora_rank = 0"),
        ({"teacher": "http://host/v1"}, "no whole distribution"),
        ({"teacher": "http://host/v1", "support": "teacher", "kl_temperature": 0.7}, "wanted kl_temperature = 1"),
    ],
)
def test_a_teacher_that_cannot_be_says_why(named, says):
    with pytest.raises(UsageError, match=says):
        recipe_from(named)


@pytest.mark.parametrize(
    ("named", "reads"),
    [({}, True), ({"method": "off-policy"}, True), ({"method": "sft"}, False), ({"method": "grpo"}, False)],
)
def test_who_reads_a_context(named, reads):
    assert recipe_from(named).reads_context is reads
    assert recipe_from(named | {"nca": 0.1}).reads_context


@pytest.mark.parametrize("values", [{"method": "sft"}, {"method": "off-policy"}, {"temperature": 0.0}])
def test_importance_needs_a_student_that_draws(values):
    with pytest.raises(UsageError, match="importance"):
        Recipe(importance=2.0, **values)
