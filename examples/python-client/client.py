"""A Holdfast client of the full profile: sends numbered commands and gets each answer once, across any number of drops.
Exit code 0: every command was answered. 1: the server said stop, an answer is lost, or a command was given up. 2: the time ran out."""
import argparse, asyncio, base64, contextlib, functools, json, pathlib, random, re, sys, time
from websockets import ConnectionClosed, InvalidHandshake, InvalidStatusCode, connect

REFUSALS = ('RATE_LIMITED', 'TOO_MANY_IN_FLIGHT', 'STORE_UNAVAILABLE', 'DRAINING')
ACTIONS = {40: 'stop', 42: 'resume', 43: 'new', 44: 'stop'}  # by hundreds of the close code; others: resume_later (P-49)
say = functools.partial(print, file=sys.stderr, flush=True)

class Client:
    """`plan` holds the commands of this session in order: the one with id n is plan[n - 1], since each session counts from 1 (P-11)."""
    def __init__(self, options):
        self.options, self.session, self.token, self.last_seq = options, None, None, 0  # a resume needs the last three
        self.plan, self.next, self.sent = list(range(1, options.count + 1)), 1, 0  # next id to send; highest id ever sent
        self.answers, self.lost, self.given_up = {}, set(), set()
        self.waiting = {}  # id -> bytes of what is sent on this connection and unanswered
        self.not_before, self.attempts, self.window, self.limits = 0.0, 0, 1, {}  # window: most unanswered commands for now
        self.first, self.progress, self.fruitless = None, False, (None, 0)  # P-49c: first command, and how often it got nowhere
        self.suspects, self.alone = set(), False  # not sent again unless they were accepted; one command at a time (P-49b)
        self.refused_with = None  # the credentials of the last 401 or 403
        self.ending = False  # `end` was sent: a lost connection is resumed to send it again, and no new session is begun (P-38b)
        self.stats = dict.fromkeys(('sessions', 'resumes', 'outputs', 'duplicates', 'refusals'), 0) | {'gaps': []}

    def credentials(self):
        token = self.options.token
        if token and token[0] == '@':  # read at each attempt, since credentials expire and are renewed (P-47)
            token = pathlib.Path(token[1:]).read_text().strip()
        return token

    def offers(self, token):
        entries = ['holdfast.v1']
        if token:
            jwt = re.fullmatch(r'[\w-]+(\.[\w-]+){2}', token)  # everything else goes as auth64, which a server of revision 1.0 does not know (P-3)
            entries.append('auth.' + token if jwt else 'auth64.' + base64.urlsafe_b64encode(token.encode()).decode().rstrip('='))
        return entries + ([f'resume.{self.session}.{self.token}.{self.last_seq}'] if self.token else [])

    async def run(self):
        while True:
            action, retry_ms, token = 'resume_later', 0, self.credentials()
            try:  # no compression (P-1); liveness is watched in converse (P-43)
                self.ws = await connect(self.options.url, subprotocols=self.offers(token), compression=None, ping_interval=None, max_size=None)
                action, retry_ms = await self.converse()
            except InvalidStatusCode as error:  # refused before the upgrade (P-4)
                say('refused: HTTP', error.status_code)
                action, retry_ms = self.after_refusal(error.status_code, token), retry_after(error.headers)
            except (OSError, InvalidHandshake, asyncio.TimeoutError) as error:
                say('connection failed:', repr(error))
            if action == 'stop':
                return 0 if len(self.answers) == self.options.count else 1
            # `new` offers the old session too: the refusal's `previous` says which commands had been accepted (P-49d).
            again = action == 'resume_later' or self.attempts > 0  # "now" is the first attempt only (P-49a)
            back_off = random.uniform(0, min(30, 0.5 * 2 ** self.attempts)) if again else 0  # P-53b
            await asyncio.sleep(back_off + min(max(retry_ms or 0, 0), 3_600_000) / 1000)
            self.attempts += 1

    def after_refusal(self, status, token):  # P-53a
        if status in (401, 403):  # once more, if there are other credentials by then
            fresh = self.credentials()
            again, self.refused_with = fresh != token and self.refused_with is None, token
            return 'resume' if again else 'stop'
        return 'stop' if status in (400, 426) else 'resume_later'

    async def converse(self):  # one connection, from the first frame to its end; returns what is to be done next, and when
        goodbye, silence, self.live, since = {}, 35, False, time.monotonic()
        said_end, is_over = False, False
        self.first, self.progress, self.refused_with, code = None, False, None, 1006
        sender = asyncio.create_task(self.send_commands())
        try:
            while True:
                frame = json.loads(await asyncio.wait_for(self.ws.recv(), silence))
                kind, payload = frame['type'], frame.get('payload')
                if kind == 'session_created' and self.ending:  # the old session is over, and the one in its place is not wanted
                    said_end = is_over = True
                    say('ended', self.session, payload.get('previous', ''))
                    await self.send({'type': 'end'})
                elif kind in ('session_created', 'session_resumed'):
                    silence = payload['heartbeatMs'] / 1000 + 10
                    self.attach(kind, payload)
                elif 'seq' in frame:
                    self.handle(frame)
                elif kind == 'error':
                    self.refused(frame)
                elif kind == 'ping':
                    await self.send({'type': 'ack', 'seq': self.last_seq})
                elif kind == 'goodbye':  # before the close, whose code may not arrive (P-42)
                    say('goodbye', goodbye := payload)
                if kind in ('session_created', 'live'):  # the replay is over
                    self.live, since = True, time.monotonic()
                if self.live and not said_end and len(self.answers) + len(self.lost) + len(self.given_up) == self.options.count:
                    said_end = self.ending = True
                    await self.send({'type': 'end', 'ack': self.last_seq})
        except (ConnectionClosed, asyncio.TimeoutError) as error:
            code = getattr(error, 'code', 1006)
            say('closed:', code)
            action = goodbye.get('action', ACTIONS.get(code // 100, 'resume_later'))
            return 'stop' if is_over or (self.ending and action == 'new') else action, goodbye.get('retryAfterMs')
        finally:
            sender.cancel()
            self.ws.transport.abort()  # not close(), which would end the session (P-38)
            self.suspect(code)
            if self.live and time.monotonic() - since >= 5:
                self.attempts = 0  # P-53c

    def suspect(self, code):  # what is not to be sent again, once a resume has shown that it was not accepted
        if code in (1002, 1007):
            if len(self.waiting) == 1:
                self.suspects |= self.waiting.keys()
            self.alone = True
        elif code == 1009 and self.waiting:
            self.suspects.add(max(self.waiting, key=self.waiting.get))
        if self.first is not None and not self.progress:
            self.fruitless = (self.first, self.fruitless[1] + 1 if self.fruitless[0] == self.first else 1)
            if self.fruitless[1] == 3:  # P-49c
                self.suspects.add(self.first)
        elif self.progress:
            self.fruitless = (None, 0)

    def attach(self, kind, payload):
        self.limits, self.waiting = payload['limits'], {}
        self.window = 1 if self.alone else self.limits['maxInFlight']
        previous = payload.get('previous') or {}
        # What is above the watermark was not accepted (P-31). Where nobody says which were, all that were sent may have been.
        accepted = payload.get('lastCommand', previous.get('lastCommand', self.sent))
        for culprit in sorted((each for each in self.suspects if each > accepted), reverse=True):
            self.give_up(culprit)
        self.suspects = set()
        if kind == 'session_resumed':
            self.stats['resumes'] += 1
            self.next = accepted + 1
            if gap := payload['gap']:  # outputs that will never come (P-32)
                self.stats['gaps'].append(gap)
                self.last_seq = gap['to']
                self.next = 1  # asks for all open answers: none runs twice, RESULT_EXPIRED tells a lost one (P-12)
        else:
            self.stats['sessions'] += 1
            self.lost |= set(self.plan[:accepted]) - self.answers.keys()  # perhaps executed, so not sent again
            self.plan, self.next, self.sent, self.last_seq, self.fruitless = self.plan[accepted:], 1, 0, 0, (None, 0)
        self.session, self.token = payload['sessionId'], payload.get('resumeToken')  # each attach brings a new token (P-28)
        say(kind, self.session, previous or payload.get('gap') or '')

    def give_up(self, id):  # it was not accepted, so that its id goes to the next command (P-49b)
        say('given up: command', number := self.plan.pop(id - 1))
        self.given_up.add(number)
        self.alone, self.fruitless, self.sent = False, (None, 0), min(self.sent, id - 1)

    async def send_commands(self):
        while True:
            id = self.next
            if id <= len(self.plan) and (self.plan[id - 1] in self.answers or self.plan[id - 1] in self.lost):
                self.next += 1
            elif self.live and id <= len(self.plan) and len(self.waiting) < self.window and time.monotonic() >= self.not_before:
                frame = {'id': id, 'command': self.options.command, 'payload': {'n': self.plan[id - 1]}, 'ack': self.last_seq}
                self.waiting[id] = len(json.dumps(frame))
                self.first = self.first or id
                self.sent, self.next = max(self.sent, id), id + 1
                await self.send(frame)
            else:
                await asyncio.sleep(0.005)

    async def send(self, frame):
        with contextlib.suppress(ConnectionClosed):  # converse learns of it as well, after it has read what came before
            await self.ws.send(json.dumps(frame))

    def handle(self, frame):
        seq, id = frame['seq'], frame.get('id')
        if seq <= self.last_seq:  # an answer that was sent again (P-12)
            self.stats['duplicates'] += 1
            return
        if seq != self.last_seq + 1 or (id is not None and self.plan[id - 1] in self.answers):
            raise RuntimeError(f'protocol violated after seq {self.last_seq}: {frame}')
        self.last_seq = seq
        self.window = 1 if self.alone else min(self.window + 1, self.limits['maxInFlight'])
        self.stats['outputs'] += 1
        if frame['type'] == 'gap':  # one message that will never come (P-50d)
            self.stats['gaps'].append({'from': seq, 'to': seq})
        if id is not None:
            self.answers[self.plan[id - 1]] = frame
            self.waiting.pop(id, None)
            self.progress = True
        if self.options.drop_every and self.stats['outputs'] % self.options.drop_every == 0:
            self.attempts = 0  # nobody else's fault
            raise ConnectionResetError('dropped on purpose')  # with whatever is under way in either direction

    def refused(self, frame):  # an error without seq: the command was not accepted (P-16), or its answer is gone (P-12)
        code, id = frame['code'], frame.get('id')
        self.stats['refusals'] += 1
        self.progress = True
        self.waiting.pop(id, None)
        if code in REFUSALS:
            self.next, self.window = min(self.next, id), 1  # slowly from there on, or the server closes with 4102 (P-46)
            self.not_before = time.monotonic() + frame.get('retryAfterMs', 100) / 1000
        elif code == 'COMMAND_GAP':
            self.next = min(self.next, frame['expected'])
        elif code == 'BAD_FRAME' and id is not None:  # it does not pass; those behind it move up (P-6)
            self.give_up(id)
            self.next, self.waiting = min(self.next, id), {each: size for each, size in self.waiting.items() if each < id}
        elif code == 'RESULT_EXPIRED' and self.plan[id - 1] not in self.answers:
            self.lost.add(self.plan[id - 1])

def retry_after(headers):  # whole seconds (P-4); a gateway may write a date, which is left to the back-off
    text = headers.get('retry-after', '')
    return 1000 * int(text) if text.isdecimal() else 0

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
print(json.dumps({'answered': len(client.answers), 'lost': sorted(client.lost), 'given_up': sorted(client.given_up), **client.stats}))
sys.exit(code)
