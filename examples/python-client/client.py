"""A Holdfast client of the full profile: sends numbered commands and gets each answer once, across any number of drops.
Exit code 0: every command was answered. 1: the server said stop, or an answer is lost. 2: the time ran out."""
import argparse, asyncio, base64, contextlib, functools, json, pathlib, random, sys, time
from websockets import ConnectionClosed, InvalidHandshake, InvalidStatusCode, connect

REFUSALS = ('RATE_LIMITED', 'TOO_MANY_IN_FLIGHT', 'STORE_UNAVAILABLE', 'DRAINING')
ACTIONS = {40: 'stop', 42: 'resume', 43: 'new', 44: 'stop'}  # by hundreds of the close code; others: resume_later (P-49)
say = functools.partial(print, file=sys.stderr, flush=True)

class Client:
    """Commands are counted from 1 to `count` here; on the wire each session numbers its own, so id = number - base (P-11)."""
    def __init__(self, options):
        self.options, self.session, self.token, self.last_seq = options, None, None, 0  # a resume needs the last three
        self.base, self.next, self.sent = 0, 1, 0  # settled in earlier sessions; next to send; highest ever sent
        self.answers, self.lost, self.waiting = {}, set(), set()
        self.not_before, self.attempts, self.window, self.limits = 0.0, 0, 1, {}  # window: most unanswered commands for now
        self.stats = dict.fromkeys(('sessions', 'resumes', 'outputs', 'duplicates', 'refusals'), 0) | {'gaps': []}

    def offers(self):
        entries, token = ['holdfast.v1'], self.options.token
        if token and token[0] == '@':  # read at each attempt, since credentials expire and are renewed (P-47)
            token = pathlib.Path(token[1:]).read_text().strip()
        if token:
            entries.append('auth.' + (token if '.' in token else base64.urlsafe_b64encode(token.encode()).decode().rstrip('=')))
        return entries + ([f'resume.{self.session}.{self.token}.{self.last_seq}'] if self.token else [])

    async def run(self):
        while True:
            action, retry_ms = 'resume_later', 0
            try:  # no compression (P-1); liveness is watched in converse (P-43)
                self.ws = await connect(self.options.url, subprotocols=self.offers(), compression=None, ping_interval=None, max_size=None)
                action, retry_ms = await self.converse()
            except InvalidStatusCode as error:  # refused before the upgrade (P-4)
                say('refused: HTTP', error.status_code)
                action, retry_ms = 'resume_later' if error.status_code in (429, 503) else 'stop', 1000 * int(error.headers.get('retry-after', 0))
            except (OSError, InvalidHandshake, asyncio.TimeoutError) as error:
                say('connection failed:', repr(error))
            if action == 'stop':
                return 0 if len(self.answers) == self.options.count else 1
            # `new` offers the old session too: the refusal's `previous` says which commands had been accepted (P-33).
            again = action == 'resume_later' or self.attempts > 0
            await asyncio.sleep(max(again * random.uniform(0.5, 1) * min(10, 0.1 * 2 ** self.attempts), (retry_ms or 0) / 1000))
            self.attempts += 1

    async def converse(self):  # one connection, from the first frame to its end; returns what is to be done next, and when
        goodbye, silence, self.live, ending = {}, 35, False, False
        sender = asyncio.create_task(self.send_commands())
        try:
            while True:
                frame = json.loads(await asyncio.wait_for(self.ws.recv(), silence))
                kind, payload = frame['type'], frame.get('payload')
                if kind in ('session_created', 'session_resumed'):
                    silence = payload['heartbeatMs'] / 1000 + 10
                    self.attach(kind, payload)
                elif 'seq' in frame:
                    self.handle(frame)
                elif kind == 'error':
                    self.refused(frame)
                elif kind == 'ping':
                    self.attempts = 0
                    await self.send({'type': 'ack', 'seq': self.last_seq})
                elif kind == 'goodbye':  # before the close, whose code may not arrive (P-42)
                    say('goodbye', goodbye := payload)
                self.live = self.live or kind in ('session_created', 'live')  # the replay is over
                if self.live and not ending and len(self.answers) + len(self.lost) == self.options.count:
                    ending = True
                    await self.send({'type': 'end', 'ack': self.last_seq})
        except (ConnectionClosed, asyncio.TimeoutError) as error:
            code = getattr(error, 'code', 1006)
            say('closed:', code)
            return goodbye.get('action', ACTIONS.get(code // 100, 'resume_later')), goodbye.get('retryAfterMs')
        finally:
            sender.cancel()
            self.ws.transport.abort()  # not close(), which would end the session (P-38)

    def attach(self, kind, payload):
        self.limits, self.window, self.waiting = payload['limits'], payload['limits']['maxInFlight'], set()
        if kind == 'session_resumed':
            self.stats['resumes'] += 1
            self.next = self.base + payload['lastCommand'] + 1  # what is above the watermark was not accepted (P-31)
            if gap := payload['gap']:  # outputs that will never come (P-32)
                self.stats['gaps'].append(gap)
                self.last_seq = gap['to']
                self.next = self.base + 1  # asks for all open answers: none runs twice, RESULT_EXPIRED tells a lost one (P-12)
        else:
            self.stats['sessions'] += 1
            previous = payload.get('previous') or {}
            # Accepted commands may have run and are not sent again; where nobody says which were accepted, all sent ones may have been.
            accepted = self.base + previous['lastCommand'] if 'lastCommand' in previous else max(self.base, self.sent)
            self.lost |= set(range(self.base + 1, accepted + 1)) - self.answers.keys()
            self.base, self.next, self.last_seq = accepted, accepted + 1, 0
        self.session, self.token = payload['sessionId'], payload.get('resumeToken')  # each attach brings a new token (P-28)
        say(kind, self.session, payload.get('previous') or payload.get('gap') or '')

    async def send_commands(self):
        while True:
            if self.next in self.answers or self.next in self.lost:
                self.next += 1
            elif self.live and self.next <= self.options.count and len(self.waiting) < self.window and time.monotonic() >= self.not_before:
                frame = {'id': self.next - self.base, 'command': self.options.command, 'payload': {'n': self.next}, 'ack': self.last_seq}
                self.waiting.add(self.next)
                self.sent, self.next = max(self.sent, self.next), self.next + 1
                await self.send(frame)
            else:
                await asyncio.sleep(0.005)

    async def send(self, frame):
        with contextlib.suppress(ConnectionClosed):  # converse learns of it as well, after it has read what came before
            await self.ws.send(json.dumps(frame))

    def handle(self, frame):
        seq, number = frame['seq'], self.base + frame.get('id', 0)
        if seq <= self.last_seq:  # an answer that was sent again (P-12)
            self.stats['duplicates'] += 1
            return
        if seq != self.last_seq + 1 or ('id' in frame and number in self.answers):
            raise RuntimeError(f'protocol violated after seq {self.last_seq}: {frame}')
        self.last_seq, self.attempts, self.window = seq, 0, min(self.window + 1, self.limits['maxInFlight'])
        self.stats['outputs'] += 1
        if 'id' in frame:
            self.answers[number] = frame
            self.waiting.discard(number)
        if self.options.drop_every and self.stats['outputs'] % self.options.drop_every == 0:
            raise ConnectionResetError('dropped on purpose')  # with whatever is under way in either direction

    def refused(self, frame):  # an error without seq: the command was not accepted (P-16), or its answer is gone (P-12)
        code, number = frame['code'], self.base + frame.get('id', 0)
        self.stats['refusals'] += 1
        self.waiting.discard(number)
        if code in REFUSALS:
            self.next, self.window = min(self.next, number), 1  # slowly from there on, or the server closes with 4102 (P-46)
            self.not_before = time.monotonic() + frame.get('retryAfterMs', 100) / 1000
        elif code == 'COMMAND_GAP':
            self.next = min(self.next, self.base + frame['expected'])
        elif code == 'RESULT_EXPIRED' and number not in self.answers:
            self.lost.add(number)

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument('--url', default='ws://127.0.0.1:3000/ws')
parser.add_argument('--count', type=int, default=10, help='commands to send')
parser.add_argument('--command', default='echo')
parser.add_argument('--token', help='credential, or @ and the name of a file that holds it')
parser.add_argument('--drop-every', type=int, default=0, help='break the connection after each so many outputs')
parser.add_argument('--timeout', type=float, default=60, help='seconds for everything')
client, code = Client(parser.parse_args()), 2
with contextlib.suppress(asyncio.TimeoutError):
    code = asyncio.run(asyncio.wait_for(client.run(), client.options.timeout))
print(json.dumps({'answered': len(client.answers), 'lost': sorted(client.lost), **client.stats}))
sys.exit(code)
