"""The Celery peer of bench/queue: worker module, producer, latency probe. BENCH_SOCKET: Redis.

  celery -A celery_peer worker ...      celery_peer.py enqueue N      celery_peer.py latency N
"""
import os
import sys
import time

from celery import Celery

URL = "redis+socket://" + os.environ["BENCH_SOCKET"]
app = Celery("bench", broker=URL, backend=URL)
app.conf.update(task_acks_late=True, worker_prefetch_multiplier=4, result_expires=86400, task_ignore_result=False,
                broker_connection_retry_on_startup=True, worker_send_task_events=False)


@app.task(name="noop")
def noop(payload=None):
    return {"outcome": "done", "began": time.time()}


def main():
    what, n = sys.argv[1], int(sys.argv[2])
    if what == "enqueue":
        with app.producer_pool.acquire(block=True) as producer:
            for _ in range(n):
                noop.apply_async(producer=producer)
        return
    for _ in range(n):
        began = time.time()
        r = noop.apply_async()
        got = r.get(timeout=30)
        print(f"{(got['began'] - began) * 1000:.3f} {(time.time() - began) * 1000:.3f}")
        time.sleep(0.01)


if __name__ == "__main__":
    main()
