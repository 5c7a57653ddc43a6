// The BullMQ peer of bench/queue: worker, producer, latency probe. BENCH_SOCKET: Redis.
//   node bullmq_peer.js worker CONCURRENCY | enqueue N | latency N
'use strict';
const {Queue, QueueEvents, Worker} = require('bullmq');
const connection = {path: process.env.BENCH_SOCKET, maxRetriesPerRequest: null};
const [what, count] = [process.argv[2], Number(process.argv[3])];
const now = () => performance.timeOrigin + performance.now();

async function enqueue() {
    const queue = new Queue('bench', {connection});
    for (let left = count; left > 0; left -= 1000)
        await queue.addBulk(Array.from({length: Math.min(left, 1000)}, () => ({name: 'noop', data: {}})));
    await queue.close();
}

async function latency() {
    const queue = new Queue('bench', {connection});
    const events = new QueueEvents('bench', {connection});
    await events.waitUntilReady();
    for (let i = 0; i < count; i++) {
        const began = now();
        const job = await queue.add('noop', {});
        const got = await job.waitUntilFinished(events);
        console.log(`${(got.began - began).toFixed(3)} ${(now() - began).toFixed(3)}`);
        await new Promise(r => setTimeout(r, 10));
    }
    await events.close();
    await queue.close();
}

if (what === 'worker')
    new Worker('bench', async () => ({outcome: 'done', began: now()}), {connection, concurrency: count});
else
    (what === 'enqueue' ? enqueue() : latency()).then(() => process.exit(0));
