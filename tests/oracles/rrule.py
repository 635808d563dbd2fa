"""Writes `rrule.jsonl`: slots of random calendar rules, by a library that knows nothing of this crate.

Oracle: python-dateutil 2.9.0.post0 (`rrulestr`), with tzdata 2026.6 under Python 3.11. To run it:

    python3 -m venv /tmp/oracles
    /tmp/oracles/bin/pip install python-dateutil==2.9.0.post0 tzdata==2026.6
    PYTHONTZPATH= /tmp/oracles/bin/python tests/oracles/rrule.py > tests/oracles/rrule.jsonl

The seed is fixed, so it writes the same file each time. `cargo test` only reads the file (`tests/it/oracles_rrule.rs`).

A line is a JSON object:

    t  the lines as `Rule::calendar` reads them
    f  the instant to start from, in seconds since 1970
    y  the last year in which dateutil looked for slots, by the clock of the rule
    s  up to six slots after `f` in these years, ascending: seconds from `f` to the first, then from each to the next
    p  up to six slots before it, descending: seconds back from `f` to the first, then from each to the next
    o  1 if dateutil has the slots out of order, or one of them twice; `s` and `p` are then sorted, and each is there once
"""

import datetime as datetime_module
import json
import random
import sys
from datetime import datetime, timedelta, timezone
from zoneinfo import ZoneInfo

from dateutil.rrule import rrulestr

SEED = 19981101
SLOTS = 6
LINES = 1000
ZONES = [
    "UTC",
    "Europe/Berlin",
    "America/New_York",
    "Australia/Lord_Howe",  # Its clocks change by half an hour.
    "Asia/Kolkata",  # Half an hour off, without changes.
    "America/Sao_Paulo",  # Its clocks changed at midnight, until 2019.
    "Pacific/Apia",  # It has no 30 December 2011.
]
# How far a start may lie before the instant of the search, in days: dateutil goes through all that is between.
REACH = {"YEARLY": 12000, "MONTHLY": 4000, "WEEKLY": 2000, "DAILY": 700, "HOURLY": 40, "MINUTELY": 2, "SECONDLY": 0.05}
DAYS = "MO TU WE TH FR SA SU".split()
# How many years after the instant of the search dateutil goes on, or it would look for what never comes up to 9999.
YEARS = {"YEARLY": 40, "MONTHLY": 20, "WEEKLY": 20, "DAILY": 10, "HOURLY": 2, "MINUTELY": 1, "SECONDLY": 0}
# What dateutil is known to read in its own way.
SPECIAL = [
    "DTSTART:20100101T090000Z\nRRULE:FREQ=YEARLY;BYWEEKNO=52;BYDAY=SA,SU",
    "DTSTART;TZID=Europe/Berlin:20150101T090000\nRRULE:FREQ=YEARLY;BYWEEKNO=53;BYDAY=FR,SA,SU",
    "DTSTART;TZID=America/New_York:20160101T090000\nRRULE:FREQ=YEARLY;BYWEEKNO=52,53;BYDAY=SA,SU;WKST=SU",
    "DTSTART:20100101T090000Z\nRRULE:FREQ=MONTHLY;BYDAY=MO,2TU,-1SU",
    "DTSTART;TZID=Europe/Berlin:20100101T090000\nRRULE:FREQ=YEARLY;BYMONTH=3;BYDAY=1WE,TH",
    "DTSTART:20260107T090000Z\nRRULE:FREQ=WEEKLY;BYDAY=MO,WE,FR;BYSETPOS=1",
    "DTSTART:20260107T090000Z\nRRULE:FREQ=WEEKLY;BYDAY=MO,WE,FR;BYSETPOS=2;COUNT=5",
]
rng = random.Random(SEED)


def sample(low, high, most, negative=False):
    values = sorted(rng.sample(range(low, high + 1), rng.randint(1, most)))
    if negative:
        values = [-value if rng.random() < 0.4 else value for value in values]
    return ",".join(map(str, values))


def weekdays(most_number):
    days = rng.sample(DAYS, rng.choice([1, 1, 2, 3, 5]))
    # dateutil intersects days with a number and those without, so they are not mixed.
    if most_number and rng.random() < 0.6:
        return ",".join(f"{rng.choice([-1, 1]) * rng.randint(1, most_number)}{day}" for day in days)
    return ",".join(days)


def parts(freq, start):
    """The parts of a rule, as a dict."""
    found = {"FREQ": freq}
    if rng.random() < 0.45:
        found["INTERVAL"] = rng.choice([2, 2, 3, 4, 5, 7, 13, 30])
    if rng.random() < 0.3:
        found["WKST"] = rng.choice(DAYS)
    fine = ["HOURLY", "MINUTELY", "SECONDLY"]
    chance = 0.25 if freq in fine else 0.4
    if rng.random() < chance:
        found["BYMONTH"] = sample(1, 12, 4)
    if freq == "YEARLY" and rng.random() < 0.2:
        found["BYWEEKNO"] = sample(1, 53, 4, True)
    if freq in ["YEARLY"] + fine and rng.random() < 0.15:
        found["BYYEARDAY"] = sample(1, 366, 20 if freq in fine else 6, True)
    if freq != "WEEKLY" and rng.random() < chance:
        found["BYMONTHDAY"] = sample(1, 31, 12 if freq in fine else 4, True)
    if rng.random() < chance + 0.1:
        number = {"MONTHLY": 4, "YEARLY": 0 if "BYWEEKNO" in found else 4 if "BYMONTH" in found else 50}.get(freq, 0)
        found["BYDAY"] = weekdays(number)
    if rng.random() < (0.35 if freq != "SECONDLY" else 0.2):
        hours = [start.hour] if freq in fine else []
        found["BYHOUR"] = ",".join(map(str, sorted(set(hours + rng.sample(range(24), rng.randint(1, 5))))))
    if rng.random() < 0.3:
        found["BYMINUTE"] = sample(0, 59, 4)
    if rng.random() < 0.12:
        found["BYSECOND"] = sample(0, 59, 3)
    has_part = any(name.startswith("BY") for name in found)
    if has_part and rng.random() < 0.25:
        found["BYSETPOS"] = ",".join(str(rng.choice([1, 1, 2, 3, -1, -1, -2])) for _ in range(rng.choice([1, 1, 2])))
    return found


def stamp(moment):
    return moment.strftime("%Y%m%dT%H%M%S")


def utc(seconds):
    return datetime.fromtimestamp(seconds, timezone.utc)


def slots_of(text, until, last_year):
    """The slots up to some more than are needed after `until`, as dateutil has them."""
    datetime_module.MAXYEAR = last_year
    found = []
    for slot in rrulestr(text, forceset=True, tzids=ZoneInfo):
        found.append(int(slot.timestamp()))
        if sum(at > until for at in found[-20:]) > SLOTS + 8:
            break
    return found


def deltas(start, slots):
    return [abs(slot - before) for before, slot in zip([start] + slots, slots)]


def line(freq, name, change=None):
    zone = ZoneInfo(name)
    low = int(datetime(1990, 1, 1, tzinfo=timezone.utc).timestamp())
    high = int(datetime(2037, 1, 1, tzinfo=timezone.utc).timestamp())
    search = change + rng.randint(-2 * 86400, 3600) if change else rng.randint(low, high)
    reach = REACH[freq]
    before = rng.randint(0, int(reach * 86400)) if rng.random() < 0.8 else -rng.randint(0, 86400)
    start = datetime.fromtimestamp(search - before, zone).replace(microsecond=0, tzinfo=None)
    if freq != "SECONDLY" and rng.random() < 0.5:
        start = start.replace(minute=rng.choice([0, 15, 30, 45]), second=0)
    if change and rng.random() < 0.7:
        # At the time of day of the change, or an hour before or after it.
        civil = (utc(change).astimezone(zone) - timedelta(hours=rng.choice([0, 1, 1, 1, 2]))).time()
        start = start.replace(hour=civil.hour, minute=rng.choice([0, 10, 30, 59]))
    found = parts(freq, start)
    if change and rng.random() < 0.8:
        found = {"FREQ": freq}
        if freq == "DAILY" and rng.random() < 0.5:
            found["BYHOUR"] = "0,1,2,3,4"
        elif freq in ("WEEKLY", "MONTHLY"):
            found["BYDAY"] = ",".join(DAYS)
            found["BYHOUR"] = rng.choice(["2", "0,2,3", "1,2,3", "0"])
    end = rng.random()
    if end < 0.2:
        found["COUNT"] = rng.randint(1, 300 if rng.random() < 0.5 else 20)
    elif end < 0.4:
        found["UNTIL"] = stamp(utc(search + rng.randint(-3600, int(reach * 86400)))) + "Z"
    names = list(found)
    rng.shuffle(names)
    rule = "RRULE:" + ";".join(f"{name}={found[name]}" for name in names)
    prefix = f"DTSTART:{stamp(start)}Z" if name == "UTC" else f"DTSTART;TZID={name}:{stamp(start)}"
    text = f"{prefix}\n{rule}"
    last_year = utc(search).year + 1 + YEARS[freq]
    try:
        plain = slots_of(text, search, last_year)
    except ValueError:
        return None  # The interval misses all hours, minutes or seconds.
    near = sorted(at for at in plain if abs(at - search) < 400 * 86400)
    if near and rng.random() < 0.35:
        chosen = rng.sample(near, min(len(near), rng.randint(1, 4)))
        if rng.random() < 0.5 or name == "UTC":
            text += "\nEXDATE:" + ",".join(stamp(utc(at)) + "Z" for at in chosen)
        else:
            text += f"\nEXDATE;TZID={name}:" + ",".join(stamp(datetime.fromtimestamp(at, zone)) for at in chosen)
    if rng.random() < 0.3:
        chosen = [search + rng.randint(-86400, 3 * 86400) for _ in range(rng.randint(1, 4))]
        text += "\nRDATE:" + ",".join(stamp(utc(at)) + "Z" for at in chosen)
    slots = slots_of(text, search, last_year)
    if not slots or slots[-1] < 0:
        return None
    if rng.random() < 0.2:
        search = rng.choice(slots[-20:])
        slots = slots_of(text, search, last_year)
    return answer(text, search, last_year, slots)


def answer(text, search, last_year, slots):
    ordered = sorted(set(slots))
    after = [at for at in ordered if at > search][:SLOTS]
    back = [at for at in reversed(ordered) if 0 <= at < search][:SLOTS]
    record = {"t": text, "f": search, "y": last_year, "s": deltas(search, after), "p": deltas(search, back)}
    shown = set(after + back)
    part = [at for at in slots if at in shown]
    if part != sorted(shown):
        record["o"] = 1
    return record


def offset(zone, seconds):
    return datetime.fromtimestamp(seconds, zone).utcoffset().total_seconds()


def changes(zone):
    """When the clocks of a zone change from 1990 to 2036."""
    found = []
    step = 12 * 3600
    for seconds in range(631152000, 2114380800, step):
        before = offset(zone, seconds)
        if before != offset(zone, seconds + step):
            low, high = seconds, seconds + step
            while low + 1 < high:
                middle = (low + high) // 2
                low, high = (middle, high) if offset(zone, middle) == before else (low, middle)
            found.append(high)
    return found


def main():
    all_changes = {name: changes(ZoneInfo(name)) for name in ZONES}
    changing = [name for name in ZONES if all_changes[name]]
    for text in SPECIAL:
        for year in (2019, 2026):
            search = int(datetime(year, 1, 1, tzinfo=timezone.utc).timestamp())
            print(json.dumps(answer(text, search, year + 20, slots_of(text, search, year + 20)), separators=(",", ":")))
    lines = 2 * len(SPECIAL)
    while lines < LINES:
        if lines < LINES * 0.65:
            freq = rng.choice(["YEARLY", "YEARLY", "MONTHLY", "MONTHLY", "WEEKLY", "DAILY", "HOURLY", "MINUTELY", "SECONDLY"])
            record = line(freq, rng.choice(ZONES))
        else:
            name = rng.choice(changing)
            freq = rng.choice(["WEEKLY", "MONTHLY", "DAILY", "DAILY", "DAILY", "HOURLY", "MINUTELY"])
            record = line(freq, name, rng.choice(all_changes[name]))
        if record:
            print(json.dumps(record, separators=(",", ":")))
            lines += 1
    print(f"{lines} lines", file=sys.stderr)


main()
