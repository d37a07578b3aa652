"""Questions and examples of the experiment, as JSON lines, each a function of the seed.

python experiments/consistency/questions.py RUN runs/consistency

RUN names the corpus that cloze questions are cut from: its test split gives the questions, its
training split the examples for tuning.
"""

import argparse
import json
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from calibtrain.runs.loading import opened

BEFORE, LEAST = 120, 3
"""Characters of a cloze prompt, and the fewest letters of a word that is asked for."""
_NEAR = 50  # words of about one frequency
CAPITALS = {
    "Albania": "Tirana",
    "Algeria": "Algiers",
    "Argentina": "Buenos Aires",
    "Armenia": "Yerevan",
    "Australia": "Canberra",
    "Austria": "Vienna",
    "Bangladesh": "Dhaka",
    "Belgium": "Brussels",
    "Bhutan": "Thimphu",
    "Botswana": "Gaborone",
    "Brazil": "Brasilia|Brasília",
    "Bulgaria": "Sofia",
    "Cambodia": "Phnom Penh",
    "Canada": "Ottawa",
    "Chile": "Santiago",
    "China": "Beijing",
    "Colombia": "Bogota|Bogotá",
    "Croatia": "Zagreb",
    "Cuba": "Havana",
    "Denmark": "Copenhagen",
    "Ecuador": "Quito",
    "Egypt": "Cairo",
    "Estonia": "Tallinn",
    "Ethiopia": "Addis Ababa",
    "Fiji": "Suva",
    "Finland": "Helsinki",
    "Georgia": "Tbilisi",
    "Ghana": "Accra",
    "Greece": "Athens",
    "Guatemala": "Guatemala City",
    "Honduras": "Tegucigalpa",
    "Hungary": "Budapest",
    "Iceland": "Reykjavik|Reykjavík",
    "India": "New Delhi",
    "Indonesia": "Jakarta",
    "Iran": "Tehran",
    "Iraq": "Baghdad",
    "Ireland": "Dublin",
    "Jamaica": "Kingston",
    "Japan": "Tokyo",
    "Jordan": "Amman",
    "Kenya": "Nairobi",
    "Laos": "Vientiane",
    "Latvia": "Riga",
    "Lebanon": "Beirut",
    "Libya": "Tripoli",
    "Lithuania": "Vilnius",
    "Madagascar": "Antananarivo",
    "Malaysia": "Kuala Lumpur",
    "Mali": "Bamako",
    "Malta": "Valletta",
    "Mexico": "Mexico City",
    "Mongolia": "Ulaanbaatar|Ulan Bator",
    "Morocco": "Rabat",
    "Mozambique": "Maputo",
    "Namibia": "Windhoek",
    "Nepal": "Kathmandu",
    "New Zealand": "Wellington",
    "Nicaragua": "Managua",
    "Nigeria": "Abuja",
    "Norway": "Oslo",
    "Pakistan": "Islamabad",
    "Panama": "Panama City",
    "Paraguay": "Asuncion|Asunción",
    "Peru": "Lima",
    "Poland": "Warsaw",
    "Portugal": "Lisbon",
    "Qatar": "Doha",
    "Romania": "Bucharest",
    "Russia": "Moscow",
    "Rwanda": "Kigali",
    "Saudi Arabia": "Riyadh",
    "Senegal": "Dakar",
    "Serbia": "Belgrade",
    "Slovakia": "Bratislava",
    "Slovenia": "Ljubljana",
    "Somalia": "Mogadishu",
    "South Korea": "Seoul",
    "Spain": "Madrid",
    "Sudan": "Khartoum",
    "Sweden": "Stockholm",
    "Syria": "Damascus",
    "Thailand": "Bangkok",
    "Tunisia": "Tunis",
    "Turkey": "Ankara",
    "Uganda": "Kampala",
    "Ukraine": "Kyiv|Kiev",
    "United Kingdom": "London",
    "Uruguay": "Montevideo",
    "Venezuela": "Caracas",
    "Vietnam": "Hanoi",
    "Yemen": "Sanaa|Sana'a",
    "Zambia": "Lusaka",
    "Zimbabwe": "Harare",
}
"""Countries and their capitals; other spellings after a bar."""
_SHOTS = {"Germany": "Berlin", "Italy": "Rome", "Haiti": "Port-au-Prince"}


def capitals() -> list[dict[str, Any]]:
    """Returns a question for each country, three others answered before it."""
    shots = "".join(f"The capital of {name} is {city}.\n" for name, city in _SHOTS.items())
    return [
        {"question": f"{shots}The capital of {name} is", "answer": cities.split("|")}
        for name, cities in CAPITALS.items()
    ]


def arithmetic(count: int, seed: int) -> list[dict[str, Any]]:
    """Returns sums of two numbers from 1 to 9, or of one of them and a number up to 30."""
    rng = np.random.default_rng(seed)
    pairs = sorted({(a, b) for a in range(1, 10) for b in range(1, 31)})
    shots = "3 + 4 = 7\n5 + 18 = 23\n9 + 1 = 10\n"
    return [
        {"question": f"{shots}{a} + {b} =", "answer": str(a + b)}
        for a, b in (pairs[i] for i in rng.permutation(len(pairs))[:count])
    ]


def cloze(texts: Iterable[str], count: int, seed: int) -> list[dict[str, Any]]:
    """Returns beginnings of texts up to a word, and the word: drawn evenly over all words."""
    places = []
    for text in texts:
        for found in re.finditer(r"(?<= )[A-Za-z]+", text):
            if found.start() >= BEFORE and len(found.group()) >= LEAST:
                places.append((text[found.start() - BEFORE : found.start()], found.group()))
    rng = np.random.default_rng(seed)
    chosen = rng.choice(len(places), count, replace=False)
    return [{"question": places[i][0], "answer": places[i][1]} for i in chosen]


def pairs(asked: Sequence[dict[str, Any]], texts: Sequence[str], seed: int) -> list[dict[str, str]]:
    """Returns preferences: the word itself over another one of about its frequency."""
    counts = Counter(word for text in texts for word in re.findall(r"[A-Za-z]{3,}", text))
    ranked = [word for word, _ in counts.most_common()]
    rank = {word: place for place, word in enumerate(ranked)}
    rng = np.random.default_rng(seed)
    found = []
    for each in asked:
        place = rank[each["answer"]]
        first = max(0, min(place - _NEAR // 2, len(ranked) - _NEAR))
        near = [word for word in ranked[first : first + _NEAR] if word != each["answer"]]
        other = near[int(rng.integers(len(near)))]
        found.append({"prompt": each["question"], "chosen": each["answer"], "rejected": other})
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", type=Path, help="whose corpus is read")
    parser.add_argument("out", type=Path, help="folder of the files")
    parser.add_argument("--questions", type=int, default=100)
    parser.add_argument("--examples", type=int, default=2000)
    given = parser.parse_args()
    with opened(given.run) as saved:
        corpus = saved.corpus(None)
        train, test = ([each.text for each in corpus.documents(s)] for s in ("train", "test"))
    preferred = pairs(cloze(train, given.examples, seed=1), train, seed=2)
    files = {
        "capitals": capitals(),
        "arithmetic": arithmetic(given.questions, seed=0),
        "cloze": cloze(test, given.questions, seed=0),
        "pairs": preferred,
        "answers": [{"prompt": e["prompt"], "response": e["chosen"]} for e in preferred],
    }
    given.out.mkdir(parents=True, exist_ok=True)
    for name, rows in files.items():
        lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
        (given.out / f"{name}.jsonl").write_text(lines, "utf-8")
        print(f"{given.out / name}.jsonl: {len(rows)}")


if __name__ == "__main__":
    main()
