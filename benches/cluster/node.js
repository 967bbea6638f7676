// What Node's own cluster sends from a worker to its master in a second: node node.js SECONDS
// The worker sends a thousand messages of 100 bytes whenever it is asked for more.
const cluster = require('cluster');
const BATCH = 1000;

if (cluster.isMaster) {
  const until = Date.now() + Number(process.argv[2]) * 1000;
  const worker = cluster.fork();
  let heard = 0, began;
  worker.on('online', () => { began = process.hrtime.bigint(); worker.send({ cmd: 'more' }); });
  worker.on('message', () => {
    heard += 1;
    if (heard % BATCH !== 0) return;
    if (Date.now() < until) { worker.send({ cmd: 'more' }); return; }
    console.log(Math.round(heard / (Number(process.hrtime.bigint() - began) / 1e9)));
    process.exit(0);
  });
} else {
  const msg = 'a'.repeat(100 - JSON.stringify({ cmd: 'b', msg: '' }).length);
  process.on('message', () => { for (let n = 0; n < BATCH; n++) process.send({ cmd: 'b', msg }); });
}
