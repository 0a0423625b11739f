"""The simulated engine written a second time, slowly: every step one by one, every sum from its parts.

It shares the nouns with blendrun and no code with the kernel: what is cached is a dictionary, who runs is a list, and
nothing is remembered that can be counted again.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from blendrun.blend.base import Blend, Order
from blendrun.blend.budget import CrossoverBudget, TurnsBudget
from blendrun.names import Overlap
from blendrun.simulate.base import EXACT, Eviction, SimulatedEngine, StepTime
from blendrun.simulate.simulator import RATES, SHARES
from blendrun.tokens.base import Prompts
from blendrun.tree.base import PrefixTree

LEFT, RIGHT = "left", "right"


@dataclass(eq=False)
class Request:
    place: int
    path: list[int]  # Nodes from the root's child to the leaf.
    prompt: int
    output: int
    expected: int
    choices: int
    limit: int
    fixed: bool
    parts: int = 1
    first: int = 0
    common: int = 0
    pause: int = 0  # To compute when the first part is there, for which the others wait.
    resumes: int = 0  # Round in which these may be computed.
    side: str = LEFT
    answered: int = 0  # Tokens of each choice, first tokens counted.
    cached_answers: int = 0
    computed: int = 0  # Prompt and lost answers in the pool.
    to_compute: int = 0
    decoding: bool = False
    twice: int = 0
    own: int = 0
    steps: int = 0
    expected_end: int = 0
    ended_at: float = -1.0


@dataclass(eq=False)
class Cached:
    size: int
    usable: bool = False
    part: int = 0  # Computed of it where it is half in.
    used_at: int = 0
    answers: int = 0


@dataclass(eq=False)
class Reference:
    tree: PrefixTree
    prompts: Prompts
    fed: Order | Blend
    outputs: Sequence[int]
    expected: Sequence[int]
    step_time: StepTime
    engine: SimulatedEngine
    limits: Sequence[int] | None = None
    fixed: Sequence[bool] | None = None
    now: float = 0.0
    compute: float = 0.0
    memory: float = 0.0
    hits: int = 0
    prefilled: int = 0
    recomputed: int = 0
    decoded: int = 0
    steps: int = 0
    retractions: int = 0
    most_used: int = 0
    cache: dict[int, Cached] = field(default_factory=dict)
    prefilling: list[Request] = field(default_factory=list)
    decoding: list[Request] = field(default_factory=list)
    back: list[Request] = field(default_factory=list)
    computed: list[Request] = field(default_factory=list)  # In the step before, so nobody knows yet.
    tick: int = 0
    decode_steps: int = 0
    due: dict[str, float] = field(default_factory=lambda: {LEFT: 0.0, RIGHT: 0.0})
    share: float = 1.0
    share_units: tuple[int, int] = (-1, -1)
    # Of SGLang's own admission: what it sees of the last step, whether it looks, and whether it will again.
    kept: float = 0.0
    leaving: int = 0
    shut: bool = False
    opens: bool = False
    looks: int = 0
    in_tail: bool = False
    host: set[int] = field(default_factory=set)
    loading: int = 0
    loaded: int = 0
    round: int = 0  # Of the scheduler.
    apart: bool = False  # Of the step that is being built: rows do not decode in it if it prefills.
    turn_of_prefill: bool = True
    rows_then: int = 0  # When the last turn of prefill ended.

    def __post_init__(self) -> None:
        order = self.fed.row_prompt if isinstance(self.fed, Blend) else self.fed.prompt
        place_of = {int(prompt): place for place, prompt in enumerate(self.tree.prompt)}
        self.sizes: list[int] = (self.tree.depth - self.tree.start).tolist()
        self.all = []
        for place, prompt in enumerate(order.tolist()):
            path: list[int] = []
            node = int(self.tree.leaf[place_of[prompt]])
            while node > 0:
                path.insert(0, node)
                node = int(self.tree.parent[node])
            self.all.append(
                Request(
                    place,
                    path,
                    int(self.prompts.prompt_tokens[prompt]),
                    int(self.outputs[prompt]),
                    int(self.expected[prompt]),
                    int(self.prompts.choices[prompt]),
                    int((self.expected if self.limits is None else self.limits)[prompt]),
                    self.fixed is not None and bool(self.fixed[prompt]),
                )
            )
            if (parts := self.prompts.parts) is not None:
                one = self.all[-1]
                one.parts, one.first, one.common = (
                    int(column[prompt]) for column in (parts.count, parts.first, parts.common)
                )
                one.choices = max(one.choices, one.parts)
        self.row = list(self.all)
        self.guess = self.engine.reserve
        self.last_step: dict[int, int] = {}
        blend = self.fed if isinstance(self.fed, Blend) else None
        self.unit = blend.row.unit.tolist() if blend else [0] * len(self.all)
        self.density = blend.row.density.tolist() if blend else [1.0]
        self.reads = blend.row.reads.tolist() if blend else [1.0]
        never = [False] * len(self.all)
        self.stays = {
            LEFT: blend.row.keep_left.tolist() if blend else never,
            RIGHT: blend.row.keep_right.tolist() if blend else never,
        }
        self.at_end = blend.row.size.tolist() if blend else []
        self.reach = blend.row.held.reach.tolist() if blend else []
        self.own_compute = blend.row.held.compute.tolist() if blend else [0.0] * len(self.all)
        self.own_memory = blend.row.held.memory.tolist() if blend else [0.0] * len(self.all)
        self.rest_compute = float(blend.row.held.compute.sum()) if blend else 0.0
        self.rest_memory = float(blend.row.held.memory.sum()) if blend else 0.0

    # What is where.

    @property
    def running(self) -> list[Request]:
        return self.prefilling + self.decoding

    def size(self, node: int) -> int:
        return self.sizes[node]

    def locked(self) -> set[int]:
        return {node for request in self.running for node in request.path}

    def wanted(self) -> set[int]:
        return {node for request in self.row + self.back for node in request.path}

    def used(self) -> int:
        cached = sum(entry.size + entry.answers for entry in self.cache.values())
        return cached + sum(request.cached_answers for request in self.running)

    def held(self) -> int:
        """Tokens that something runs on."""
        locked = self.locked()
        return sum(self.size(node) for node in locked) + sum(request.cached_answers for request in self.running)

    def rows(self) -> int:
        return sum(request.choices for request in self.decoding)

    def context(self) -> int:
        return sum(request.choices * request.prompt + request.cached_answers for request in self.decoding)

    def cached_reads(self, taken: int) -> int:
        """Cached tokens that a step reads before it adds its own."""
        least = None if taken and self.engine.overlap is Overlap.MIXED else self.engine.shared_reads
        tokens = 0
        for node in {node for request in self.decoding for node in request.path}:
            rows = sum(request.choices for request in self.decoding if node in request.path)
            tokens += self.size(node) * (1 if least is not None and self.size(node) >= least else rows)
        return tokens + sum(request.cached_answers for request in self.decoding)

    def usable(self, request: Request) -> int:
        tokens = 0
        for node in request.path:
            entry = self.cache.get(node)
            if node not in self.host:
                if entry is None:
                    break
                if not entry.usable:
                    tokens += entry.part
                    break
            tokens += self.size(node)
        return tokens

    def unheld(self, request: Request) -> int:
        locked = self.locked()
        return sum(self.size(node) for node in request.path if node not in locked)

    def is_gated(self, request: Request) -> bool:
        entries = [self.cache.get(node) for node in request.path]
        coming = sum(entry.size for entry in entries if entry is not None and not entry.usable)
        coming -= next((entry.part for entry in entries if entry is not None and not entry.usable), 0)
        return self.engine.gate and coming >= self.engine.gate_tokens

    def make_room(self) -> None:
        while self.used() > self.engine.pool_tokens:
            locked = self.locked()
            idle = [node for node in self.cache if node not in locked]
            if not idle:
                return
            wanted = self.wanted() if self.engine.eviction is Eviction.NEXT_USE else set(idle)
            # Parents come before children in the numbering, so the largest number of a path is its deepest node.
            node = min(idle, key=lambda node: (node in wanted, self.cache[node].used_at, -node))
            if self.cache[node].answers:
                self.cache[node].answers = 0
            else:
                del self.cache[node]
                host = self.engine.host
                kept = sum(self.size(each) for each in self.host) + self.size(node)
                if host is not None and node in self.wanted() and kept <= host.tokens:
                    self.host.add(node)

    # Admission.

    def remaining(self, request: Request) -> int:
        return max(request.expected - request.answered - 1, 0)

    def delay(self) -> int:
        """Decode steps of the others while a newcomer is in prefill."""
        return int(bool(self.decoding) and not self.apart)

    def fits(self, request: Request) -> bool:
        running = self.running
        if not running:
            return True
        rows = sum(each.choices for each in running)
        if rows + request.choices > self.engine.max_running:
            return False
        held = self.held() + self.unheld(request) + request.choices * request.answered
        pool = self.engine.pool_tokens
        if self.own:
            asked = request.choices * (min(max(request.limit - request.answered, 0), self.engine.clip) + 1)
            return held + self.leaving + sum(each.twice for each in self.all) + asked + self.kept < pool
        rows += request.choices
        # Whoever is past its expected end is not expected to end at all.
        ends: dict[int, list[Request]] = {}
        for each in running:
            if each.expected_end > self.decode_steps:
                ends.setdefault(each.expected_end - self.decode_steps, []).append(each)
        for ahead in range(self.remaining(request) + self.delay() + 1):
            if held + ahead * rows > pool:
                return False
            for each in ends.get(ahead, ()):
                held -= each.own + each.choices * each.steps - ahead * each.choices
                rows -= each.choices
        return True

    @property
    def own(self) -> bool:
        """Whether SGLang admits by itself."""
        return self.engine.reserve != EXACT

    @property
    def late(self) -> bool:
        return self.engine.late and self.engine.overlap is not Overlap.PDMUX

    def in_full(self, request: Request) -> int:
        return request.choices * (min(request.limit, self.engine.clip) + 1)

    def find_kept(self) -> None:
        """What SGLang keeps free; those that have just ended run on, where it does not know that yet."""
        self.kept = 0.0
        if not self.own:
            return
        for each in self.decoding:
            answered = each.answered - (1 if self.late else 0)
            left = each.choices * min(each.limit - answered, self.engine.clip)
            self.kept += left * (1.0 if each.fixed else self.guess)
        self.kept += sum(self.in_full(each) for each in self.prefilling)
        if self.engine.overlap is Overlap.MIXED:
            self.kept += self.rows()

    def refuse(self, request: Request) -> None:
        if self.engine.refresh:
            self.use(request)
        if self.own and self.decoding:
            self.shut = True

    def refresh(self) -> None:
        """SGLang counts the prefixes of the first 128 that wait as just used, the first one's as the last."""
        if not self.engine.refresh or not self.row:
            return
        if self.looks % self.engine.refresh == 0:
            for request in reversed(self.row[:128]):
                self.use(request)
        self.looks += 1

    def use(self, request: Request) -> None:
        """What a request finds in the cache counts as just used."""
        self.tick += 1
        locked = self.locked()
        for node in request.path:
            entry = self.cache.get(node)
            if entry is None or not entry.usable:
                break
            if node not in locked:
                entry.used_at = self.tick

    def admit(self, request: Request) -> None:
        hit = max(min(self.usable(request), request.prompt - 1), 0)
        if self.own:
            self.kept += self.in_full(request)
            new = sum(self.size(node) for node in request.path if node not in self.cache)
            request.twice = max(request.prompt - hit - new, 0)
        lost = request.choices * request.answered
        if request.answered == 0:
            self.hits += hit
        else:
            self.recomputed += request.prompt - hit + lost
        request.own = self.unheld(request) + lost
        request.cached_answers = lost
        request.steps = self.remaining(request)
        request.expected_end = self.decode_steps + request.steps + self.delay()
        request.computed = hit
        request.to_compute = request.prompt - hit + lost
        waits = self.engine.gate and request.answered == 0 and request.common - hit >= self.engine.gate_tokens
        request.pause = request.prompt - request.first if waits else 0
        tokens, usable = 0, self.usable(request)
        for node in request.path:
            tokens += self.size(node)
            if node in self.host:
                self.host.remove(node)
                self.cache[node] = Cached(self.size(node), usable=tokens <= usable)
                self.loading += self.size(node) if tokens <= usable else 0
            self.cache.setdefault(node, Cached(self.size(node)))
        self.prefilling.append(request)

    def ready(self, request: Request) -> int:
        """Tokens that may be computed in this round."""
        return 0 if request.resumes > self.round else request.to_compute - request.pause

    def part(self, side: str) -> float:
        return (self.share if side == LEFT else 1.0 - self.share) * self.engine.pool_tokens

    def holding(self, side: str) -> float:
        mine = [each for each in self.running if each.side == side]
        return sum(each.own + each.choices * each.steps / 2 for each in mine)

    def find_share(self) -> None:
        if not self.row:
            return
        left, right = self.unit[self.row[0].place], self.unit[self.row[-1].place]
        if (left, right) == self.share_units:
            return
        self.share_units = left, right
        rho_left, rho_right = self.density[left], self.density[right]
        rho = self.rest_compute / max(self.rest_memory, 1e-30)
        if rho_left <= rho_right or rho >= rho_left:
            self.share = 1.0
        elif rho <= rho_right:
            self.share = 0.0
        else:
            # M_L k_L (rho_L - rho) = M_R k_R (rho - rho_R), M_L + M_R = M.
            pull_left = self.reads[left] * (rho_left - rho)
            pull_right = self.reads[right] * (rho - rho_right)
            self.share = pull_right / (pull_left + pull_right)

    def next_request(self) -> Request | None:
        if self.back:
            if self.is_gated(self.back[-1]):
                return None
            if self.fits(self.back[-1]):
                return self.back.pop()
            self.refuse(self.back[-1])
            return None
        if self.fed_longest_first():
            if not self.row or self.is_gated(self.row[0]):
                return None
            if self.fits(self.row[0]):
                return self.row.pop(0)
            self.refuse(self.row[0])
            return None
        self.find_share()
        sides = (RIGHT, LEFT) if self.holding(RIGHT) < self.part(RIGHT) else (LEFT, RIGHT)
        begun = [side for side in (RIGHT, LEFT) if self.row and self.stays[side][self.next_of(side).place]]
        if begun:
            sides = (RIGHT, LEFT) if begun[0] == RIGHT else (LEFT, RIGHT)
        for side, borrows in ((sides[0], False), (sides[1], False), (LEFT, True)):
            head = self.head(side, borrows)
            if head is None:
                continue
            if self.is_gated(head):
                return None
            if self.fits(head):
                self.take(head, side)
                return head
            if self.stays[side][head.place] or not isinstance(self.fed, Blend):
                self.refuse(head)
                return None
        return None

    def fed_longest_first(self) -> bool:
        """Whether all that is left of a blend fits together with what runs; sorts it when it begins to."""
        if not self.in_tail and self.at_end:
            left = sum(size for size, each in zip(self.at_end, self.all, strict=True) if each.ended_at < 0)
            self.in_tail = left <= self.engine.pool_tokens
            if self.in_tail:
                self.row.sort(key=lambda each: -self.reach[each.place])
        return self.in_tail

    def head(self, side: str, borrows: bool) -> Request | None:
        if not self.row:
            return None
        request = self.next_of(side)
        late = self.engine.paced and self.due[side] > self.decode_steps
        barred = self.running and (late or (self.holding(side) >= self.part(side) and not borrows))
        return None if barred and not self.stays[side][request.place] else request

    def next_of(self, side: str) -> Request:
        return self.row[0 if side == LEFT else -1]

    def take(self, request: Request, side: str) -> None:
        self.row.remove(request)
        request.side = side
        self.rest_compute -= self.own_compute[request.place]
        self.rest_memory -= self.own_memory[request.place]
        steps = max(request.expected - 1, 0)
        mean = request.prompt + request.choices * steps / 2
        self.due[side] += mean * steps / max(self.part(side), 1.0)

    # One step of the engine.

    def budget(self) -> int:
        budget, rows, context = self.engine.budget, self.rows(), self.context()
        exclusive, pdmux = (self.engine.overlap is each for each in (Overlap.EXCLUSIVE, Overlap.PDMUX))
        self.apart = exclusive or (not pdmux and not budget.mixes(rows, context))
        if isinstance(budget, TurnsBudget):
            self.turn_of_prefill = self.turn_of_prefill or budget.is_due(rows, self.rows_then)
            if not self.turn_of_prefill:
                return 0
        if exclusive:
            return budget.prefill_tokens(0, 0)
        if pdmux and isinstance(budget, CrossoverBudget):
            return max(budget.tokens - rows, 0)
        return budget.prefill_tokens(rows, context)

    def prefill(self, budget: int) -> tuple[int, float, list[Request]]:
        taken, squares, done = 0, 0.0, []
        for request in self.prefilling:
            if request.resumes > self.round:
                continue
            tokens = min(request.to_compute - request.pause, budget - taken)
            if tokens == 0:
                break
            squares += float(request.computed + tokens) ** 2 - float(request.computed) ** 2
            request.computed += tokens
            request.to_compute -= tokens
            taken += tokens
            if request.pause and request.to_compute == request.pause:
                request.pause, request.resumes = 0, self.round + (2 if self.late else 1)
            if request.to_compute == 0:
                done.append(request)
            else:
                self.publish(request, request.computed)
        return taken, squares, done

    def publish(self, request: Request, tokens: int) -> None:
        for node in request.path:
            if node not in self.cache or self.cache[node].usable:
                continue
            if self.tree.depth[node] <= tokens:
                self.cache[node].usable = True
            elif self.tree.start[node] < tokens:
                self.cache[node].part = max(self.cache[node].part, tokens - int(self.tree.start[node]))

    def retract(self) -> None:
        while self.decoding and len(self.running) > 1 and self.held() + self.rows() > self.engine.pool_tokens:
            victim = min(self.decoding, key=lambda each: (each.answered, -each.prompt, -each.place))
            self.decoding.remove(victim)
            victim.cached_answers = 0
            self.touch(victim)
            self.back.append(victim)
            self.retractions += 1
            self.opens = True
            answered = sum(each.choices * (each.answered + 20) for each in self.decoding)
            self.guess = min(answered / (sum(each.choices * each.limit for each in self.decoding) + 1), 1.0)

    def touch(self, request: Request) -> None:
        """Note the use of what nobody else uses."""
        self.tick += 1
        locked = self.locked()
        for node in request.path:
            if node not in locked:
                self.cache[node].used_at = self.tick

    def end(self) -> None:
        over = [each for each in self.decoding if each.answered >= each.output]
        ends = {each.place: each for each in over}
        for place in sorted(ends, key=lambda place: (self.last_step[place], place)):
            request = ends[place]
            self.decoding.remove(request)
            if self.engine.eviction is Eviction.LRU and request.path:
                self.cache[request.path[-1]].answers = request.cached_answers
            request.cached_answers = 0
            self.touch(request)
            self.make_room()
            request.ended_at = self.now

    def seconds(self, prefill: int, squares: float, rows: int, reads: int, new: int) -> float:
        step = self.step_time

        def weights(tokens: int) -> float:
            return step.weights - (step.experts * step.expert_miss**tokens if step.experts else 0.0)

        other = step.step + step.request * new + step.row * rows
        square = step.prefill_square * squares
        read = step.kv_token * reads
        if self.engine.overlap is Overlap.PDMUX and prefill and rows:
            one = max(step.prefill_token * prefill, weights(prefill)) + square
            two = max(step.decode_token * rows, weights(rows)) + read
            best = one + two
            for share, rate in zip(SHARES.tolist(), RATES.tolist(), strict=True):
                if rate > 0 and share < 1:
                    slow_one, slow_two = one / (1 - share), two / rate
                    if slow_two <= slow_one:
                        best = min(best, slow_two + one - (1 - share) * slow_two)
                    else:
                        best = min(best, slow_one + two - rate * slow_one)
            return other + best
        if prefill and rows:
            read *= 1 + step.mixed
        products = max(step.prefill_token * prefill + step.decode_token * rows, weights(prefill + rows))
        return other + products + square + read

    def run(self) -> Reference:
        while not self.take_results():
            self.one_step()
        return self

    def take_results(self) -> bool:
        """End what has its last token. Returns whether all have ended."""
        if self.late:
            self.find_kept()
        held, before = self.held(), len(self.decoding)
        self.end()
        if not self.late:
            self.find_kept()
        ended = len(self.decoding) < before
        if self.opens or not self.decoding or (ended and not self.late):
            self.shut = False
        self.opens = ended and self.late
        self.leaving = held - self.held() if self.late else 0
        if not self.running:
            self.opens, self.leaving, self.kept = False, 0, 0.0
        return all(request.ended_at >= 0 for request in self.all)

    def one_step(self) -> None:
        self.round += 1
        budget, new = self.budget(), 0
        chunk_waits = any(request.to_compute for request in self.prefilling)
        if (self.row or self.back) and not (self.shut and not chunk_waits):
            self.refresh()
        while not self.shut and sum(map(self.ready, self.prefilling)) < budget:
            request = self.next_request()
            if request is None:
                break
            self.admit(request)
            new += request.parts
        if new:
            self.make_room()
        taken, squares, done = self.prefill(budget)
        waits = any(request.pause or request.resumes > self.round for request in self.prefilling)
        if not taken and not waits and not (self.late and self.computed) and self.turn_of_prefill:
            self.turn_of_prefill, self.rows_then = False, self.rows()
        rows, reads, retractions = 0, 0, self.retractions
        if self.decoding and not (taken and self.apart):
            self.retract()
            rows, reads = self.rows(), self.cached_reads(taken) + self.rows()
        step, drafts = self.step_time, self.engine.drafts
        checked, grown = rows, 1.0
        if drafts is not None and rows and not taken and rows <= drafts.rows:
            checked, grown = rows * (1 + drafts.count), sum(drafts.acceptance**each for each in range(drafts.count + 1))
        if taken or rows:
            seconds = self.seconds(taken, squares, checked, reads, new) + step.row * (rows - checked)
            host = self.engine.host
            self.now += seconds / grown + (host.token_seconds * self.loading if host else 0.0)
            self.loaded += self.loading
            self.loading = 0
            self.steps += 1
        computed = step.prefill_token * taken + step.decode_token * checked + step.prefill_square * squares
        self.compute += computed / grown
        self.memory += step.kv_token * reads / grown
        self.prefilled += taken
        if rows:
            self.decode_steps += 1
            self.decoded += rows
            for request in self.decoding:
                request.answered += 1
                request.cached_answers += request.choices
            self.make_room()
            alone = not taken or self.engine.overlap is Overlap.PDMUX
            if alone and self.retractions == retractions:
                least = 0.14 * self.engine.reserve
                self.guess = max(self.guess - (self.engine.reserve - least) / 600, least)
        if taken and len(done) < len(self.prefilling):
            self.opens = True
        for request in self.computed if self.late else done:
            self.publish(request, request.prompt)
            request.twice = 0
        self.computed = done
        for request in done:
            self.prefilling.remove(request)
            self.decoding.append(request)
            request.expected_end = self.decode_steps + self.remaining(request)
            request.answered += 1
        for request in self.decoding:
            if request.answered >= request.output:
                self.last_step.setdefault(request.place, self.decode_steps)
        self.most_used = max(self.most_used, self.used() - (self.held() if len(self.running) == 1 else 0))
