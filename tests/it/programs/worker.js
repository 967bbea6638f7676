// A Node worker that knows nothing of its master: what it does is its first argument.
var cluster = require('cluster'), dgram = require('dgram'), fs = require('fs'), http = require('http'), net = require('net');

var id = cluster.isWorker ? cluster.worker.id : 'none';

// In one step, so that nobody reads half of it.
function write(name, value) {
  fs.writeFileSync(name + '.new', JSON.stringify(value));
  fs.renameSync(name + '.new', name);
}

function whenThere(name, then) {
  if (fs.existsSync(name)) return then();
  setTimeout(whenThere, 10, name, then);
}

function answer(request, response) {
  function go() {
    var body = 'pid=' + process.pid + '\n';
    response.writeHead(200, { 'Content-Length': body.length });
    response.end(body);
  }
  if (request.url === '/slow') {
    console.error('pid ' + process.pid + ' works on a slow request');
    setTimeout(go, 700);
  } else go();
}

// listen() in every form, and how each ended.
function listenAll(forms) {
  var found = { id: id, connected: process.connected }, left = Object.keys(forms).length;
  Object.keys(forms).forEach(function (name) {
    var form = forms[name], udp = form.udp, server = udp ? dgram.createSocket(udp) : net.createServer();
    function ended(what) {
      found[name] = what;
      if (--left === 0) write('listens-' + id, found);
    }
    server.on('error', function (error) { ended(error.code); });
    server.on('listening', function () {
      var at = server.address();
      ended(typeof at === 'string' ? at : at.address + ' ' + at.port);
    });
    if (udp) server.bind(form.bind);
    else server.listen.apply(server, form.listen);
  });
}

var modes = {
  serve: function (address, port) { http.createServer(answer).listen(+port, address); },
  any: function (port) { http.createServer(answer).listen(+port); },
  listens: function (forms) { listenAll(JSON.parse(forms)); },
  // Serves once it may.
  late: function (address, port) { whenThere('go', function () { modes.serve(address, port); }); },
  says: function (message) { process.send(JSON.parse(message)); setInterval(function () {}, 1e6); },
  idle: function () { setInterval(function () {}, 1e6); },
  // Would end by SIGTERM with another status than by Node's disconnect.
  torn: function (address, port) {
    process.on('SIGTERM', function () { write('signalled', id); process.exit(15); });
    process.on('disconnect', function () { write('disconnected', id); });
    modes.serve(address, port);
  },
  leaves: function (address, port) {
    modes.serve(address, port);
    if (id === 1) whenThere('leave', function () { cluster.worker.disconnect(); });
  },
  reopens: function (address, port) {
    var server = http.createServer(answer);
    server.listen(+port, address, function () {
      server.close(function () { http.createServer(answer).listen(+port, address); });
    });
  },
  chatter: function (count) {
    for (var i = 0; i < +count; i++) process.send({ cmd: 'n', i: i });
    process.send({ cmd: 'NODE_secret' });
    process.send('last', function () { process.exit(0); });
  },
  // Session keys for all workers: without them a client's session would end where another worker answers.
  tickets: function (address, port) {
    var server = require('tls').createServer({});
    server.listen(+port, address, function () { write('tickets-' + id, server.getTicketKeys().toString('hex')); });
  },
  // Knows nothing of requests: a reply has the cmd of what was asked.
  asked: function () {
    process.on('message', function (message) {
      var reply = { cmd: message.cmd, msg: message.cmd + ' of ' + id };
      if (message.cmd === 'note') write('noted-' + id, message.msg);
      else if (message.cmd === 'ping') process.send({ cmd: 'ping', msg: 'pong' });
      else if (message.cmd === 'bye') process.send(reply, function () { process.exit(0); });
      else if (message.cmd === 'slow') {
        write('slow-' + id, true);
        whenThere('go', function () { process.send(reply); });
      }
    });
    process.send('ready');
  },
  page: function () {
    process.on('message', function (message) {
      process.send({ cmd: 'heard', msg: message.msg || message });
    });
    process.send({ cmd: 'fromWorker', msg: 'sending message to master' });
  },
  // A child of its own has a channel of its own, or none.
  children: function (address, port) {
    var child = require('child_process'), script = process.argv[1];
    child.fork(script, ['reports', 'forked']);
    child.spawn(process.execPath, [script, 'reports', 'spawned'], { stdio: 'inherit' });
    modes.serve(address, port);
  },
  reports: function (name) {
    var server = net.createServer();
    server.listen(0, '127.0.0.1', function () {
      var keys = Object.keys(process.env).filter(function (key) { return /^NODE_(CHANNEL_FD|UNIQUE_ID)$/.test(key); });
      write('report-' + name, { worker: cluster.isWorker, connected: !!process.connected, keys: keys });
      setTimeout(function () { process.exit(0); }, 50);
    });
  },
};

modes[process.argv[2]].apply(null, process.argv.slice(3));
