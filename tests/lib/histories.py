"""Random histories of backups for retention, and its rule written a second time, from its description alone.

A history is a list of RFC 3339 times in whole seconds, no two the same: restic's order of equal ones is not defined.
"""
import calendar
import datetime as dt

UTC = dt.timezone.utc
DEFAULT = {"daily": 7, "weekly": 4, "monthly": 12, "yearly": 3}


def less(t, years=0, months=0, days=0):
    """Calendar subtraction that rolls over forward: 31 March less a month is "31 February", so 3 March."""
    month = t.year * 12 + t.month - 1 - years * 12 - months
    year, month = divmod(month, 12)
    first = dt.datetime(year, month + 1, 1, t.hour, t.minute, t.second, tzinfo=t.tzinfo)
    return first + dt.timedelta(days=t.day - 1 - days)


def kept(times, now, policy, keep_oldest):
    """Which of these times (datetimes) the policy keeps."""
    times = sorted(times, reverse=True)
    past = [t for t in times if t < now]
    rules = []
    for name, back, bucket in (("daily", {"days": policy["daily"]}, lambda t: t.date()),
                               ("weekly", {"days": 7 * policy["weekly"]}, lambda t: t.isocalendar()[:2]),
                               ("monthly", {"months": policy["monthly"]}, lambda t: (t.year, t.month)),
                               ("yearly", {"years": policy["yearly"]}, lambda t: t.year)):
        if policy[name]:
            rules.append((less(past[0], **back) if past else None, bucket))
    keep = set()
    for cut, bucket in rules:
        last = None
        for t in times:
            if cut and t <= cut:
                break
            if bucket(t) != last or (keep_oldest and t is times[-1]):
                keep.add(t)
                last = bucket(t)
    return keep


def text(t):
    return t.isoformat().replace("+00:00", "Z")


def anchor(r):
    """Some instant of 2010-2025, often one where calendars have an edge."""
    year = r.randrange(2010, 2025)
    kind = r.randrange(6)
    if kind == 0:
        month = r.choice([1, 3, 5, 7, 8, 10, 12])
        day = dt.datetime(year, month, 31, tzinfo=UTC)
    elif kind == 1:
        year = r.choice([2012, 2016, 2020, 2024])
        day = dt.datetime(year, 2, 29, tzinfo=UTC)
    elif kind == 2:  # around New Year, where ISO years and years differ
        day = dt.datetime(year, 12, 28, tzinfo=UTC) + dt.timedelta(days=r.randrange(9))
    else:
        month = r.randrange(1, 13)
        day = dt.datetime(year, month, r.randrange(1, calendar.monthrange(year, month)[1] + 1), tzinfo=UTC)
    return day + dt.timedelta(seconds=r.choice([0, 1, 86399, r.randrange(86400)]))


def history(r, policy, now, size=12, offsets=True):
    """At most size times. They crowd around what the policy looks at: its cuts, the edges of periods, the present."""
    end = anchor(r) if r.random() < 0.9 else now - dt.timedelta(days=r.randrange(2, 40), seconds=r.randrange(86400))
    cuts = [less(end, days=policy["daily"]), less(end, days=7 * policy["weekly"]),
            less(end, months=policy["monthly"]), less(end, years=policy["yearly"])]
    found = {end}
    step = r.choice([3600, 6 * 3600, 86400, 86400, 7 * 86400, 30 * 86400, 300 * 86400])
    at = end
    for _ in range(r.randrange(size)):
        kind = r.random()
        if kind < 0.6:
            at -= dt.timedelta(seconds=max(1, int(step * r.choice([1, 1, 1, r.uniform(0.01, 3)]))))
            found.add(at)
        elif kind < 0.8:
            found.add(r.choice(cuts) + dt.timedelta(seconds=r.choice([-1, 0, 1, 0, r.randrange(-90000, 90000)])))
        else:
            day = r.choice([at, *cuts]).replace(hour=0, minute=0, second=0)
            found.add(day + dt.timedelta(seconds=r.choice([-1, 0, 1])))
    if r.random() < 0.1:  # dated in the future, or nothing else at all
        future = {now + dt.timedelta(days=r.randrange(2, 500), seconds=r.randrange(86400)) for _ in range(r.randrange(1, 4))}
        found = future if r.random() < 0.3 else found | future
    zones = [UTC] * 5 + [dt.timezone(dt.timedelta(minutes=m)) for m in (60, -300, 345, 840, -720)] if offsets else [UTC]
    zone = r.choice(zones)
    return [t.astimezone(zone if r.random() < 0.8 else r.choice(zones)) for t in sorted(found)]


def policy(r):
    if r.random() < 0.7:
        return dict(DEFAULT)
    p = {"daily": r.choice([0, 1, 3, 14, 30]), "weekly": r.choice([0, 1, 5, 52]), "monthly": r.choice([0, 1, 6, 13]), "yearly": r.choice([0, 1, 2, 10])}
    return p if any(p.values()) else dict(DEFAULT)
