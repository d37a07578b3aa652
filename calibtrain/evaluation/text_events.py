"""The kinds of events of text, by their names: the same events for every vocabulary."""

from collections.abc import Mapping

from calibtrain.evaluation.bytes import NEXT_BYTE, TextEvents
from calibtrain.evaluation.words import NEXT_WORD

TEXT_EVENTS: Mapping[str, TextEvents] = {
    events.space.name: events for events in (NEXT_BYTE, NEXT_WORD)
}
