// What Node's own cluster sends from a worker to its master in a second: node node.js SECONDS
// The worker sends a thousand messages of 100 bytes whenever it is asked for more.
const cluster = require('cluster');
const BATCH = 1000;

if (cluster.isMaster) {
  const worker = cluster.fork();
  const seconds = Number(process.argv[2]);
  let heard = 0, began;
  worker.on('online', () => worker.send({ cmd: 'more' }));
  worker.on('message', () => {
    if (heard === 0) began = process.hrtime.bigint();
    heard += 1;
    if (heard % BATCH !== 0) return;
    const spent = Number(process.hrtime.bigint() - began) / 1e9;
    if (spent < seconds) { worker.send({ cmd: 'more' }); return; }
    console.log(Math.round(heard / spent));
    process.exit(0);
  });
} else {
  const msg = 'a'.repeat(100 - JSON.stringify({ cmd: 'b', msg: '' }).length);
  process.on('message', () => { for (let n = 0; n < BATCH; n++) process.send({ cmd: 'b', msg }); });
}
