"""A Platform Core in Python's standard library: answers the commands that a Holdfast server POSTs to it."""
import base64, hashlib, hmac, json, os, threading, time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

SECRET = os.environ.get('CORE_SECRET', 'an example secret of the core').encode()
answers, lock = {}, threading.Lock()  # by webhook-id: a repeat gets the first answer, nothing runs twice (in earnest: bounded, and kept on disk)


def execute(command, payload, session):
    if command == 'echo':
        return 200, {'payload': payload}
    if command == 'review.approve':
        item = payload.get('item') if isinstance(payload, dict) else None
        if not isinstance(item, str):
            return 400, {'code': 'INVALID_PAYLOAD', 'message': 'item must be a text.'}
        again = item in session['context'].get('approved', {})
        return 200, {'payload': {'item': item, 'again': again}, 'context': {'approved': {item: session['userId']}},
                     'messages': [] if again else [{'event': 'review.approved', 'payload': {'item': item}}]}
    return 404, {'code': 'UNKNOWN_COMMAND', 'message': 'No such command.'}


class Core(BaseHTTPRequestHandler):
    protocol_version, disable_nagle_algorithm = 'HTTP/1.1', True  # connections stay open, and answers leave at once

    def do_POST(self):
        key, at = self.headers['webhook-id'], self.headers['webhook-timestamp']
        body = self.rfile.read(int(self.headers['content-length']))
        digest = hmac.new(SECRET, f'{key}.{at}.'.encode() + body, hashlib.sha256).digest()
        signature = b'v1,' + base64.b64encode(digest)
        if not hmac.compare_digest(signature, self.headers.get('webhook-signature', '').encode()) or abs(time.time() - int(at)) > 300:
            return self.answer(401)
        event = json.loads(body)
        if event['type'] != 'session.command':  # session.created, session.attached, session.detached, session.ended
            print(event['type'], event['data'], flush=True)
            return self.answer(204)
        data = event['data']
        with lock:
            if key not in answers:
                answers[key] = execute(data['command'], data['payload'], data['session'])
        self.answer(*answers[key])

    def answer(self, status, value=None):
        body = b'' if value is None else json.dumps(value).encode()
        self.send_response(status)
        self.send_header('content-length', str(len(body)))
        self.end_headers()
        self.wfile.write(body)


server = ThreadingHTTPServer(('127.0.0.1', int(os.environ.get('PORT', '8080'))), Core)
print(f'core on http://127.0.0.1:{server.server_port}', flush=True)
server.serve_forever()
