"""Writes `cron.jsonl`: slots of random cron expressions, by two libraries that know nothing of each other or of this crate.

Oracles: croniter 7.0.0 and APScheduler 3.11.3 (`CronTrigger`), with tzdata 2026.6 under Python 3.11. To run it:

    python3 -m venv /tmp/oracles
    /tmp/oracles/bin/pip install croniter==7.0.0 APScheduler==3.11.3 tzdata==2026.6
    PYTHONTZPATH= /tmp/oracles/bin/python tests/oracles/cron.py > tests/oracles/cron.jsonl

The seed is fixed, so it writes the same file each time. `cargo test` only reads the file (`tests/it/oracles.rs`).

A line is a JSON object:

    e  the cron expression as `Rule::cron` reads it       z  the time zone; UTC if it is not there
    f  the instant to start from, in seconds since 1970   s  the next six slots: seconds from `f` to the first, then
                                                             from each to the next; both oracles say so
    c  the slots by croniter alone                        a  the slots by APScheduler alone
    d  where there are both `c` and `a`: what they differ in, by the classes of `difference`

How an expression is put to the oracles:

    croniter     `implement_cron_bug`: a day field that begins with `*` is intersected with the other, as Vixie cron does;
                 `second_at_beginning`; `5L` is written `L5`.
    APScheduler  always intersects the day fields, so where Vixie cron unites them it gets an `OrTrigger` of two triggers;
                 days of the week get names, because it counts them from Monday; `5#2` is `2nd fri` and `5L` is `last fri`,
                 both in its field of days.
"""

import json
import random
import sys
from datetime import datetime, timedelta, timezone
from zoneinfo import ZoneInfo

from apscheduler.triggers.combining import OrTrigger
from apscheduler.triggers.cron import CronTrigger
from croniter import CroniterError, croniter

SEED = 19790101
SLOTS = 6
ZONES = [
    "Europe/Berlin",
    "America/New_York",
    "Australia/Lord_Howe",  # Its clocks change by half an hour.
    "Asia/Kolkata",  # Half an hour off, without changes.
    "America/Sao_Paulo",  # Its clocks changed at midnight, until 2019.
    "Pacific/Apia",  # It has no 30 December 2011.
]
MONTHS = "JAN FEB MAR APR MAY JUN JUL AUG SEP OCT NOV DEC".split()
WEEKDAYS = "SUN MON TUE WED THU FRI SAT".split()
# What the oracles are known to read in their own way.
SPECIAL = [
    "0 0 29W * *",
    "0 0 30W * *",
    "0 0 31W * *",
    "5-5 12 * * *",
    "0 7-7 * * *",
    "0 0 9-9 * *",
    "0 0 1 JUN-JUN *",
    "0 0 * * WED-WED",
    "5/15 12 * * *",
    "0 6/4 * * *",
    "0 0 20/3 * *",
    "0 22-2 * * *",
    "0 0 1 NOV-FEB *",
    "0 0 * * FRI-MON",
]
ORDINALS = ["1st", "2nd", "3rd", "4th", "5th"]

rng = random.Random(SEED)


class Unsupported(Exception):
    """The oracle has no way to say it."""


# Expressions


def item(low, high, names=None):
    """A number, a range, or either of `*` and a range with a step."""

    def shown(value):
        if names and rng.random() < 0.4:
            name = names[value - low]
            return rng.choice([name, name.lower(), name.capitalize()])
        return str(value)

    kind = rng.random()
    if kind < 0.55:
        return shown(rng.randint(low, high))
    first = rng.randint(low, high - 1)
    last = rng.randint(first + 1, high)
    if kind < 0.85:
        return f"{shown(first)}-{shown(last)}"
    return f"{first}-{last}/{rng.randint(1, max(1, last - first))}"


def field(low, high, star, names=None):
    """A field that is `*` with the probability `star`."""
    kind = rng.random()
    if kind < star:
        return "*"
    if kind < star + (1 - star) * 0.2:
        return f"*/{rng.randint(1, max(2, (high - low) // 2))}"
    count = rng.choice([1, 1, 1, 2, 3])
    return ",".join(item(low, high, names) for _ in range(count))


def day_field(star):
    kind = rng.random()
    if kind < 0.05:
        return "L"
    if kind < 0.08:
        return f"L,{rng.randint(1, 20)}"
    if kind < 0.11:
        return f"{rng.randint(1, 31)}W"
    if kind < 0.13:
        return "?"
    return field(1, 31, star)


def weekday_field(star):
    kind = rng.random()
    day = rng.randint(0, 6)
    if kind < 0.06:
        return f"{rng.choice([str(day), WEEKDAYS[day]])}#{rng.randint(1, 5)}"
    if kind < 0.08:
        return f"{day}#{rng.randint(1, 2)},{rng.randint(0, 6)}#{rng.randint(3, 5)}"
    if kind < 0.11:
        return f"{day}L"
    if kind < 0.12:
        return f"{day},{(day + rng.randint(1, 6)) % 7}#{rng.randint(1, 5)}"
    if kind < 0.14:
        return "?"
    if kind < 0.17:
        return "7"
    if kind < 0.19:
        return f"{day}-7" if day else "1-7"
    return field(0, 6, star, WEEKDAYS)


def expression():
    minute = field(0, 59, 0.15)
    hour = field(0, 23, 0.3)
    fields = [minute, hour, day_field(0.45), field(1, 12, 0.6, MONTHS), weekday_field(0.5)]
    count = rng.random()
    if count < 0.15:
        fields.insert(0, field(0, 59, 0.2))
    if count < 0.03:
        first = rng.randint(1990, 2030)
        fields.append(rng.choice([f"{first}-{first + 9}", f"{first}-2040/3", "*"]))
    return " ".join(fields)


def expression_at(civil):
    """Slots in the hours around a civil time, on most days."""
    hours = [(civil.hour + shift) % 24 for shift in (-1, 0, 0, 0, 1)]
    hour = rng.choice(hours)
    hour = rng.choice(
        [str(hour), str(hour), f"{hour},{rng.randint(0, 23)}", f"{min(hour, 21)}-{min(hour, 21) + 2}", "*", "*/2", "0-23"]
    )
    minute = rng.choice(["0", "30", str(rng.randint(0, 59)), "15,45", "10-50/20", "*/20", "*/30"])
    day = rng.choice(["*", "*", "*", "1-31", "*/2"])
    weekday = rng.choice(["*", "*", "*", "SUN", "0-6"])
    return f"{minute} {hour} {day} * {weekday}"


# Oracles


def split(text):
    """The fields by name, with a second and a year if there are any."""
    names = ["minute", "hour", "day", "month", "weekday"]
    words = text.split()
    if len(words) > 5:
        names.insert(0, "second")
    if len(words) > 6:
        names.append("year")
    return dict(zip(names, words))


def croniter_slots(text, zone, start):
    fields = split(text)
    fields["weekday"] = ",".join(
        "L" + each[:-1] if each.endswith("L") else each for each in fields["weekday"].split(",")
    )
    moment = datetime.fromtimestamp(start, zone)
    schedule = croniter(
        " ".join(fields.values()), moment, ret_type=datetime, implement_cron_bug=True, second_at_beginning=True
    )
    return [int(schedule.get_next().timestamp()) for _ in range(SLOTS)]


def number(text, names):
    return names.index(text.upper()) if text.upper() in names else int(text)


def plain_weekdays(each):
    """An item of days of the week as names, which APScheduler needs: it counts from Monday."""
    span, _, step = each.partition("/")
    first, _, last = ("0-6" if span == "*" else span).partition("-")
    first = number(first, WEEKDAYS)
    last = number(last, WEEKDAYS) if last else first
    if last < first:
        raise Unsupported("a range across the end of the week")
    return [WEEKDAYS[day % 7] for day in range(first, last + 1, int(step or 1))]


def apscheduler_months(text):
    """Its names of months take no step, and it ignores the one that is there."""
    return ",".join(
        "-".join(str(MONTHS.index(part.upper()) + 1) if part.upper() in MONTHS else part for part in each.split("-"))
        for each in text.split(",")
    )


def apscheduler_trigger(text, zone):
    fields = split(text)
    day, weekday = fields["day"], fields["weekday"]
    if "W" in day:
        raise Unsupported("W")
    common = {
        "second": fields.get("second", "0"),
        "minute": fields["minute"],
        "hour": fields["hour"],
        "month": apscheduler_months(fields["month"]),
        "year": fields.get("year", "*"),
        "timezone": zone,
    }
    parts = []
    if day not in ("*", "?"):
        parts.append({"day": day.replace("L", "last")})
    plain, placed = [], []
    if weekday not in ("*", "?"):
        for each in weekday.split(","):
            if "#" in each:
                name, nth = each.split("#")
                placed.append(f"{ORDINALS[int(nth) - 1]} {WEEKDAYS[number(name, WEEKDAYS)]}")
            elif each.endswith("L"):
                placed.append(f"last {WEEKDAYS[int(each[:-1]) % 7]}")
            else:
                plain += plain_weekdays(each)
    if day.startswith("*") or weekday.startswith("*"):
        if placed and parts:
            raise Unsupported("two conditions on its field of days")
        parts = [{**(parts[0] if parts else {}), **({"day_of_week": ",".join(plain)} if plain else {})}] if not placed else []
    elif plain:
        parts.append({"day_of_week": ",".join(plain)})
    if placed:
        parts.append({"day": ",".join(placed)})
        if plain and day.startswith("*"):
            parts.append({"day_of_week": ",".join(plain)})
    triggers = [CronTrigger(**{"day": "*", "day_of_week": "*", **common, **part}) for part in parts or [{}]]
    return triggers[0] if len(triggers) == 1 else OrTrigger(triggers)


def apscheduler_slots(text, zone, start):
    trigger = apscheduler_trigger(text, zone)
    now = datetime.fromtimestamp(start, zone) + timedelta(microseconds=1)
    slots, last = [], None
    while len(slots) < SLOTS:
        last = trigger.get_next_fire_time(last, last or now)
        if last is None:
            raise Unsupported("it ends")
        slots.append(int(last.timestamp()))
    return slots


# Differences


def offset(zone, seconds):
    return datetime.fromtimestamp(seconds, zone).utcoffset().total_seconds()


def changes(zone):
    """When the clocks of a zone change from 1990 to 2037: (instant, seconds forward)."""
    found = []
    step = 12 * 3600
    begin = int(datetime(1990, 1, 1, tzinfo=timezone.utc).timestamp())
    end = int(datetime(2038, 1, 1, tzinfo=timezone.utc).timestamp())
    for seconds in range(begin, end, step):
        before, after = offset(zone, seconds), offset(zone, seconds + step)
        if before != after:
            low, high = seconds, seconds + step
            while low + 1 < high:
                middle = (low + high) // 2
                low, high = (middle, high) if offset(zone, middle) == before else (low, middle)
            found.append((high, int(after - before)))
    return found


def difference(text, zone, start, near, croniter_says, apscheduler_says):
    """The classes of the differences between the oracles, with commas; `tests/it/oracles.rs` says who is right.

    nth     a day of month, and a day of week with `#` or `L`: croniter intersects them
    equal   a range of one value: croniter takes it for all values
    repeat  APScheduler has a slot twice in a row
    back    APScheduler has a slot that is not after the start
    gap     a slot within an hour after a change of clocks forward
    fold    a slot within an hour before or after a change of clocks back
    carry   slots after midnight, some time after a change forward: APScheduler misses them
    """
    fields = split(text)
    if fields["day"] not in ("*", "?") and any(sign in fields["weekday"] for sign in "#L"):
        return "nth"
    spans = [each.partition("-") for each in text.replace(",", " ").split()]
    if any(first == last for first, _, last in spans):
        return "equal"
    classes = set()
    if len(set(apscheduler_says)) < SLOTS:
        classes.add("repeat")
    if apscheduler_says[0] <= start:
        classes.add("back")
    end = min(croniter_says[-1], apscheduler_says[-1])
    for slot in set(croniter_says) ^ set(apscheduler_says):
        if not start < slot <= end:
            continue
        close = [forward for at, forward in near if (0 if forward > 0 else -3600) <= slot - at <= 3600]
        midnight = datetime.fromtimestamp(slot, zone).replace(hour=0, minute=0, second=0).timestamp()
        late = [forward for at, forward in near if start <= at <= slot and slot - midnight < forward]
        if close:
            classes.add("gap" if close[0] > 0 else "fold")
        elif late and slot in croniter_says:
            classes.add("carry")
        else:
            raise SystemExit(f"unexplained: {text} {zone} {start} {croniter_says} {apscheduler_says}")
    return ",".join(sorted(classes))


def deltas(start, slots):
    return [slot - before for before, slot in zip([start] + slots, slots)]


def line(text, name, start, near):
    zone = ZoneInfo(name)
    record = {"e": text}
    if name != "UTC":
        record["z"] = name
    record["f"] = start
    try:
        c = croniter_slots(text, zone, start)
    except (CroniterError, ValueError):
        c = None
    try:
        a = apscheduler_slots(text, zone, start)
    except (Unsupported, ValueError):
        a = None
    if not c and not a:
        return None
    if c == a:
        record["s"] = deltas(start, c)
        return record
    if c:
        record["c"] = deltas(start, c)
    if a:
        record["a"] = deltas(start, a)
    if c and a:
        record["d"] = difference(text, zone, start, near, c, a)
    return record


def main():
    all_changes = {name: changes(ZoneInfo(name)) for name in ZONES}
    all_changes["UTC"] = []
    low = int(datetime(1990, 1, 1, tzinfo=timezone.utc).timestamp())
    high = int(datetime(2037, 1, 1, tzinfo=timezone.utc).timestamp())
    lines = []
    for text in SPECIAL * 2:
        lines.append(line(text, "UTC", rng.randint(low, high), []))
    apia = int(datetime(2011, 12, 29, 12, tzinfo=timezone.utc).timestamp())
    for text in ["0 12 * * *", "30 9,21 * * *", "0 1 * * MON-SAT", "*/30 6 * * *"]:
        lines.append(line(text, "Pacific/Apia", apia, all_changes["Pacific/Apia"]))
    while len(lines) < 2000:
        text = expression()
        for name in rng.sample(["UTC"] + ZONES, 2):
            lines.append(line(text, name, rng.randint(low, high), all_changes[name]))
    changing = [name for name in ZONES if all_changes[name]]
    while len(lines) < 3000:
        name = rng.choice(changing)
        at, _ = rng.choice(all_changes[name])
        civil = datetime.fromtimestamp(at - 1, ZoneInfo(name)) + timedelta(seconds=1)
        start = at - rng.choice([rng.randint(0, 7200), rng.randint(0, 40 * 3600), -rng.randint(0, 3600)])
        lines.append(line(expression_at(civil), name, start, all_changes[name]))
    for record in lines:
        if record:
            print(json.dumps(record, separators=(",", ":")))
    print(f"{sum(map(bool, lines))} lines", file=sys.stderr)


main()
