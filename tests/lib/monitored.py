"""Workers that are listened to."""
import json


def listening(worker):
    """Where it says that it listens; None: it has not said so yet."""
    for line in worker.log.read_text().splitlines():
        if '"http.listen"' in line:
            return json.loads(line)["at"]
    return None
