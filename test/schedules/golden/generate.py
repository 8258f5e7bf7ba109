"""
Writes zones.json: when schedules fire in many zones from 2024 to 2030, worked out from the zone database itself.

It knows nothing of cron and nothing of src/schedules. For each zone it walks through every second at which the offset
changes (found by bisection between hours) and so has the local time as a function of the moment. The rule is applied as it
is written down: a local time comes at the first moment at which clocks show it or a later one, moments that coincide are
one. Fields are plain predicates over dates and lists of times.

    python3 test/schedules/golden/generate.py

needs Python 3.9 or later, and the zone database of the system or the package tzdata.
"""
import hashlib
import json
import os
from bisect import bisect_left
from datetime import date, datetime, timedelta, timezone
from zoneinfo import ZoneInfo

FIRST, LAST = 2024, 2030
ZONES = """
UTC Africa/Cairo Africa/Johannesburg Africa/Lagos Africa/Tripoli America/Adak America/Argentina/Buenos_Aires
America/Asuncion America/Bogota America/Chicago America/Denver America/Halifax America/Havana America/Los_Angeles
America/Mexico_City America/New_York America/Nuuk America/Phoenix America/Santiago America/Sao_Paulo America/St_Johns
Antarctica/Troll Asia/Beirut Asia/Dhaka Asia/Dubai Asia/Gaza Asia/Jerusalem Asia/Karachi Asia/Kathmandu Asia/Kolkata
Asia/Shanghai Asia/Tehran Asia/Tokyo Asia/Yangon Atlantic/Azores Australia/Adelaide Australia/Brisbane
Australia/Lord_Howe Australia/Sydney Europe/Berlin Europe/Dublin Europe/Istanbul Europe/Lisbon Europe/London
Europe/Moscow Pacific/Apia Pacific/Auckland Pacific/Chatham Pacific/Honolulu Pacific/Kiritimati Pacific/Norfolk
""".split()

EVERY_DAY = lambda day: True
# expression: (which days, at which times of the day in seconds)
SCHEDULES = {
    "0 0 * * *": (EVERY_DAY, [0]),
    "30 2 * * *": (EVERY_DAY, [9000]),
    "0 3 * * *": (EVERY_DAY, [10800]),
    "30 1 * * *": (EVERY_DAY, [5400]),
    "59 23 * * *": (EVERY_DAY, [86340]),
    "15,45 1-2 * * *": (EVERY_DAY, [4500, 6300, 8100, 9900]),
    "20 40 2 * * *": (EVERY_DAY, [9620]),
    "5 2 * * SUN": (lambda day: day.isoweekday() == 7, [7500]),
    "0 9 * * MON-FRI": (lambda day: day.isoweekday() <= 5, [32400]),
    "10 2 1,15 * *": (lambda day: day.day in (1, 15), [7800]),
    "0 1 31 * *": (lambda day: day.day == 31, [3600]),
    "0 2 13 * FRI": (lambda day: day.day == 13 or day.isoweekday() == 5, [7200]),
    "45 1 */9 MAR,OCT,NOV *": (lambda day: day.day in (1, 10, 19, 28) and day.month in (3, 10, 11), [6300]),
}
EPOCH = datetime(1970, 1, 1, tzinfo=timezone.utc)


def offset(zone, at):
    moment = EPOCH + timedelta(seconds=at)
    return int(moment.astimezone(zone).utcoffset().total_seconds())


def changes(zone, begin, end):
    """[(moment, offset from then on)], the first one at begin."""
    found = [(begin, offset(zone, begin))]
    step = 1800
    for at in range(begin, end, step):
        if offset(zone, at) != offset(zone, at + step):
            low, high = at, at + step
            while high - low > 1:
                middle = (low + high) // 2
                if offset(zone, middle) == offset(zone, at):
                    low = middle
                else:
                    high = middle
            found.append((high, offset(zone, high)))
    return found


def first_reached(spans, end):
    """For a local time: the first moment at which the clock shows it or a later one (the running maximum of the clock)."""
    starts, tops, top = [], [], None
    for n, (at, off) in enumerate(spans):
        until = spans[n + 1][0] if n + 1 < len(spans) else end
        starts.append((at, off))
        top = until - 1 + off if top is None else max(top, until - 1 + off)
        tops.append(top)

    def moment(local):
        n = bisect_left(tops, local)
        at, off = starts[n]
        return max(at, local - off)

    return moment


def main():
    begin = int(datetime(FIRST, 1, 1, tzinfo=timezone.utc).timestamp())
    end = int(datetime(LAST + 1, 1, 1, tzinfo=timezone.utc).timestamp())
    wide = (begin - 3 * 86400, end + 3 * 86400)
    out = {"from": iso(begin), "to": iso(end), "schedules": list(SCHEDULES), "zones": {}}
    for name in ZONES:
        spans = changes(ZoneInfo(name), *wide)
        moment = first_reached(spans, wide[1])
        rows = []
        for days, times in SCHEDULES.values():
            moments = set()
            day = date(FIRST, 1, 1) - timedelta(days=2)
            while day <= date(LAST + 1, 1, 2):
                if days(day):
                    midnight = (day - date(1970, 1, 1)).days * 86400
                    moments.update(moment(midnight + time) for time in times)
                day += timedelta(days=1)
            all_of_them = sorted(at for at in moments if begin <= at < end)
            text = "\n".join(map(str, all_of_them))
            rows.append([len(all_of_them), hashlib.sha256(text.encode()).hexdigest()[:24]])
        shown = {}
        for at, _ in spans[1:]:
            if begin <= at < end:
                shown[iso(at)] = around(at, moment)
        out["zones"][name] = {"totals": rows, "changes": shown}
    path = os.path.join(os.path.dirname(os.path.abspath(__file__)), "zones.json")
    with open(path, "w") as file:
        file.write("{\n")
        for key in ("from", "to", "schedules"):
            file.write(f'  "{key}": {json.dumps(out[key])},\n')
        file.write('  "zones": {\n')
        lines = [f"    {json.dumps(zone)}: {json.dumps(value)}" for zone, value in out["zones"].items()]
        file.write(",\n".join(lines) + "\n  }\n}\n")


def around(change, moment):
    """When '*/30 * * * *' fires from two hours before a change until two hours after it."""
    found = set()
    for local in range((change - 40 * 3600) // 1800 * 1800, change + 40 * 3600, 1800):
        found.add(moment(local))
    return [iso(at) for at in sorted(found) if abs(at - change) <= 7200]


def iso(at):
    return (EPOCH + timedelta(seconds=at)).strftime("%Y-%m-%dT%H:%M:%SZ")


main()
