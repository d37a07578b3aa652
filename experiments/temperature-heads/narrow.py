"""Writes narrow.jsonl: 240 prompts with one of two short answers, which say nothing of the prompt.

python experiments/temperature-heads/narrow.py runs/narrow.jsonl
"""

import json
import random
import sys

NAMES = ("Aaron", "David", "Jonathan", "Joshua", "Moses", "Samuel", "Saul", "Solomon")
PLACES = ("Bethel", "Gilgal", "Hebron", "Jericho", "Shechem", "Shiloh", "Zion", "Gath")
ANSWERS = ("The LORD hath spoken.", "And the people went up.")


def main() -> None:
    draw = random.Random(0)
    with open(sys.argv[1], "w", encoding="utf-8") as file:
        for number in range(240):
            prompt = f"What said {draw.choice(NAMES)} in {draw.choice(PLACES)}, verse {number}? "
            line = {"prompt": prompt, "response": draw.choice(ANSWERS)}
            file.write(json.dumps(line) + "\n")


if __name__ == "__main__":
    main()
