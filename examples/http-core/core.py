"""A Platform Core in Python's standard library: executes the commands that a Holdfast server POSTs to it, each once.

The recipe of docs/core.md, "An idempotent core": a command's number is stored in the transaction of its effect.
"""
import base64, hashlib, hmac, json, os, sqlite3, threading, time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

SECRET = os.environ.get('CORE_SECRET', 'an example secret of the core').encode()
db = sqlite3.connect(os.environ.get('CORE_DATABASE', ':memory:'), isolation_level=None, check_same_thread=False)
db.executescript('''
    CREATE TABLE IF NOT EXISTS executed (
      webhook_id TEXT PRIMARY KEY, status INTEGER, body TEXT, executed_at TIMESTAMP DEFAULT CURRENT_TIMESTAMP
    );
    CREATE TABLE IF NOT EXISTS approvals (item TEXT, user_id TEXT);
''')
db.execute('DELETE FROM executed WHERE executed_at < ?', (time.strftime('%F %T', time.gmtime(time.time() - 86400)),))
lock = threading.Lock()  # one connection, so one transaction at a time


def execute(command, payload, session):
    """The effect of a command, within the transaction of its number: (status, answer)."""
    if command == 'echo':
        return 200, {'payload': payload}
    if command == 'review.approve':
        item = payload.get('item') if isinstance(payload, dict) else None
        if not isinstance(item, str):
            return 400, {'code': 'INVALID_PAYLOAD', 'message': 'item must be a text.'}
        again = db.execute('SELECT 1 FROM approvals WHERE item = ?', (item,)).fetchone() is not None
        db.execute('INSERT INTO approvals VALUES (?, ?)', (item, session['userId']))
        return 200, {'payload': {'item': item, 'again': again}, 'context': {'approved': {item: session['userId']}},
                     'messages': [] if again else [{'event': 'review.approved', 'payload': {'item': item}}]}
    return 404, {'code': 'UNKNOWN_COMMAND', 'message': 'No such command.'}


def execute_once(number, data):
    """What execute() gave for this number, now or before: (status, body)."""
    with lock, db:
        db.execute('BEGIN IMMEDIATE')
        if db.execute('INSERT INTO executed (webhook_id) VALUES (?) ON CONFLICT DO NOTHING', (number,)).rowcount == 0:
            return db.execute('SELECT status, body FROM executed WHERE webhook_id = ?', (number,)).fetchone()
        status, answer = execute(data['command'], data['payload'], data['session'])
        db.execute('UPDATE executed SET status = ?, body = ? WHERE webhook_id = ?', (status, json.dumps(answer), number))
        return status, json.dumps(answer)


def is_signed(headers, body):
    number, at = headers.get('webhook-id', ''), headers.get('webhook-timestamp', '')
    digest = hmac.new(SECRET, f'{number}.{at}.'.encode() + body, hashlib.sha256).digest()
    given = headers.get('webhook-signature', '').encode()
    return hmac.compare_digest(given, b'v1,' + base64.b64encode(digest)) and abs(time.time() - int(at)) <= 300


class Core(BaseHTTPRequestHandler):
    protocol_version, disable_nagle_algorithm = 'HTTP/1.1', True  # connections stay open, and answers leave at once

    def do_POST(self):
        body = self.rfile.read(int(self.headers['content-length']))
        if not is_signed(self.headers, body):
            return self.answer(401)
        event = json.loads(body)
        if event['type'] == 'session.command':
            return self.answer(*execute_once(self.headers['webhook-id'], event['data']))
        print(event['type'], event['data'], flush=True)  # session.created, session.attached, session.detached, session.ended
        self.answer(204)

    def answer(self, status, body=''):
        self.send_response(status)
        self.send_header('content-length', str(len(body.encode())))
        self.end_headers()
        self.wfile.write(body.encode())


server = ThreadingHTTPServer(('127.0.0.1', int(os.environ.get('PORT', '8080'))), Core)
print(f'core on http://127.0.0.1:{server.server_port}', flush=True)
server.serve_forever()
