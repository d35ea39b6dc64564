"""The words of the pocket world. Knows no rules: only which nouns exist.

Every name is one lower- or title-case word that begins with a consonant sound (Inform then says "a")
and stands in one pool only, so that a fact such as "coin in crate" has a single key.
"""

from typing import Final

ROOMS: Final = (
    "Kitchen", "Hall", "Cellar", "Bedroom", "Study", "Library", "Pantry", "Bathroom",
    "Garden", "Garage", "Lounge", "Nursery", "Gallery", "Chapel", "Parlor", "Laundry",
    "Workshop", "Balcony", "Courtyard", "Dungeon", "Tower", "Vault", "Stable", "Shed",
    "Porch", "Lobby", "Kennel", "Bakery", "Museum", "Theater", "Cloister", "Greenhouse",
)  # fmt: skip

CONTAINERS: Final = (
    "crate", "box", "chest", "cupboard", "drawer", "trunk", "basket", "safe",
    "locker", "wardrobe", "barrel", "suitcase", "bin", "case", "fridge", "cabinet",
)  # fmt: skip

THINGS: Final = (
    "coin", "lamp", "key", "cup", "spoon", "book", "candle", "ring",
    "hammer", "map", "bottle", "knife", "rope", "brush", "mirror", "bell",
    "pencil", "scarf", "glove", "hat", "whistle", "button", "pearl", "lemon",
    "shell", "feather", "marble", "compass", "ticket", "letter", "vase", "clock",
)  # fmt: skip

DOORS: Final = ("gate", "hatch", "door", "grille", "portal", "shutter")

DIRECTIONS: Final = ("north", "south", "east", "west")
OPPOSITE: Final = {"north": "south", "south": "north", "east": "west", "west": "east"}
