"""`Run.track` and what stands behind it: numbers of one run, encoded and appended without a Python object per point.

A Recorder knows its run by a number; the names behind the numbers are declared in the journal before they are used, once for each segment. Steps
that are counted here move on only when the write has succeeded.
"""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_GET_SIZE
from cpython.dict cimport PyDict_GetItemWithError, PyDict_Next
from cpython.float cimport PyFloat_AS_DOUBLE, PyFloat_CheckExact
from cpython.long cimport PyLong_AsLongLongAndOverflow, PyLong_CheckExact
from cpython.object cimport PyObject
from libc.math cimport isnan
from libc.stdint cimport int64_t, uint32_t, uint64_t
from libc.stdlib cimport free, malloc
from libc.string cimport memcpy

cimport cython

from collections.abc import Mapping
from typing import Any

from aimlite._ext.journal cimport JournalWriter

from aimlite._ext.keys import pack
from aimlite.errors import RunClosedError


cdef extern from "journal_file.h":
    uint64_t aimlite_now_us() nogil


cdef enum:
    HEADER = 24
    KIND_OPEN = 1
    KIND_SEQUENCE = 2
    KIND_POINTS = 3
    KIND_COLUMNS = 4
    KIND_OBJECT = 7
    CONTINUED = 1
    INHERITED = 2
    EDITED = 4
    SINCE = 8
    NOTHING = 0
    NUMBERS = 1
    OBJECTS = 2
    MAX_NAME = 4096       # bytes of a packed (name, context)
    STACK_VALUES = 32
    RECORD_BYTES = 1 << 20
    SEEN = 8              # a power of two: contexts found again without hashing them

MAX_NAME_BYTES = MAX_NAME

cdef int64_t MAX_EXACT = 1 << 53
cdef int64_t MAX_STEP = 0x7FFFFFFFFFFFFFFF
cdef frozenset NOT_NUMBERS = frozenset(("datetime64", "timedelta64", "MaskedConstant"))
cdef frozenset UNCLAIMED = frozenset(("logs", "log_records"))  # kinds that runs write by themselves: their names stay free for others
cdef frozenset ARRAYS = frozenset(("ndarray", "MaskedArray"))
cdef set TRUSTED = set()  # types: looking at the name or dtype of each numpy scalar would cost as much as the rest
cdef frozenset PLAIN = frozenset((str, int, float, bool, type(None)))


cdef inline void put_u32(unsigned char *p, uint32_t v) noexcept nogil:
    p[0] = v & 0xFF
    p[1] = (v >> 8) & 0xFF
    p[2] = (v >> 16) & 0xFF
    p[3] = (v >> 24) & 0xFF


cdef inline void put_u64(unsigned char *p, uint64_t v) noexcept nogil:
    put_u32(p, <uint32_t>v)
    put_u32(p + 4, <uint32_t>(v >> 32))


cdef inline void put_f64(unsigned char *p, double v) noexcept nogil:
    cdef uint64_t bits
    memcpy(&bits, &v, 8)
    put_u64(p, bits)


# -- what users pass, as numbers ------------------------------------------------------------------------------------------


cdef double as_value(object value, bint *is_int) except? -1.0:
    cdef int overflow = 0
    cdef int64_t number
    if PyFloat_CheckExact(value):
        is_int[0] = False
        return PyFloat_AS_DOUBLE(value)
    if PyLong_CheckExact(value):
        number = PyLong_AsLongLongAndOverflow(value, &overflow)
        if overflow or number > MAX_EXACT or number < -MAX_EXACT:
            raise ValueError(f"the value {value} does not fit: integers beyond ±2**53 cannot be read back as float64; track float({value!r}) if that will do")
        is_int[0] = True
        return <double>number
    return as_value(plain_number(value), is_int)


def plain_number(value):
    """A Python int or float from what counts as one number. Raises TypeError, ValueError."""
    if isinstance(value, bool):
        return int(value)
    if isinstance(value, float):
        return float(value)
    if isinstance(value, int):
        return int(value)
    if value is None or isinstance(value, (str, bytes, bytearray, complex)):
        raise TypeError(f"a tracked value is a number, not {type(value).__name__} {value!r:.100}")
    shape = getattr(value, "shape", None)
    if shape is not None:
        count = 1
        for size in shape:
            count *= int(size)
        if count != 1:
            raise TypeError(f"a tracked value is one number, not an array of shape {tuple(shape)}; whole columns go through track_columns()")
        if not holds_what_item_gives(value):
            raise TypeError(f"a tracked value is a number, not {type(value).__name__} {value!r:.100}")
        if not hasattr(value, "item") and hasattr(value, "numpy"):
            value = value.numpy()
        if hasattr(value, "item"):
            item = value.item()
            if type(item) is type(value):
                item = float(item)  # numpy's longdouble gives itself
            return plain_number(item)
    if hasattr(value, "__float__"):
        return float(value)
    if hasattr(value, "__index__"):
        return int(value.__index__())
    raise TypeError(f"a tracked value is a number, not {type(value).__name__} {value!r:.100}")


cdef bint holds_what_item_gives(object value):
    """Whether `item()` can be trusted of one element: of a date in nanoseconds it is an int, of what is masked out 0.0."""
    kind = type(value)
    if kind in TRUSTED:
        return True
    if kind.__name__ in NOT_NUMBERS:
        return False
    if kind.__name__ not in ARRAYS:
        TRUSTED.add(kind)
        return True
    return value.dtype.kind not in "mM" and not (kind.__name__ == "MaskedArray" and value.mask)


cdef int64_t as_step(object step) except? -1:
    cdef int overflow = 0
    cdef int64_t number
    if not PyLong_CheckExact(step):
        step = plain_step(step)
    number = PyLong_AsLongLongAndOverflow(step, &overflow)
    if overflow:
        raise ValueError(f"the step {step} is outside of 64 bits")
    return number


def plain_step(step) -> int:
    """A Python int from what counts as a step: integers of any kind and integral floats, not bools. Raises TypeError, ValueError."""
    dtype = getattr(step, "dtype", None)
    if isinstance(step, bool) or (getattr(dtype, "kind", None) not in ("i", "u", "f") and "bool" in str(dtype)):
        raise TypeError(f"a step is an integer, not the bool {step!r:.100}")
    if isinstance(step, (str, bytes)) or step is None:
        raise TypeError(f"a step is an integer, not {type(step).__name__} {step!r:.100}")
    if hasattr(step, "__index__"):
        try:
            return int(step.__index__())
        except TypeError:
            pass  # an array has the method and refuses
    try:
        number = plain_number(step)
    except TypeError:
        raise TypeError(f"a step is an integer, not {type(step).__name__} {step!r:.100}") from None
    if isinstance(number, int):
        return number
    if number != number or number in (float("inf"), float("-inf")) or number != int(number):
        raise ValueError(f"a step is an integer, not {step!r}")
    return int(number)


cdef double as_epoch(object epoch) except? -1.0:
    cdef bint is_int
    if PyFloat_CheckExact(epoch):
        return PyFloat_AS_DOUBLE(epoch)
    try:
        return as_value(epoch, &is_int)
    except TypeError:
        raise TypeError(f"an epoch is a number or None, not {type(epoch).__name__} {epoch!r:.100}") from None
    except ValueError as error:
        raise ValueError(f"epoch: {error}") from None


def canonical_context(context) -> dict:
    """The context as stored: plain dicts, tuples, str, int, float, bool, None; `None` is `{}`. Raises TypeError, ValueError."""
    if context is None:
        return {}
    if not hasattr(context, "items"):
        raise TypeError(f"a context is a dict, not {type(context).__name__} {context!r:.100}")
    return canonical_value(context, "context", 0)


cdef object canonical_value(object value, str where, int depth):
    kind = type(value)
    if depth > 30:
        raise ValueError(f"{where} is nested deeper than 30 levels")
    if kind is str or kind is int or kind is bool or value is None:
        return value
    if isinstance(value, float):
        if value != value:
            raise ValueError(f"{where} is NaN, which no context could be compared with")
        return float(value) + 0.0  # -0.0 becomes 0.0
    if isinstance(value, str):
        return str.__str__(value)
    if isinstance(value, int):
        return int(value)
    if isinstance(value, (list, tuple)):
        return tuple(canonical_value(item, f"{where}[{index}]", depth + 1) for index, item in enumerate(value))
    if hasattr(value, "items"):
        plain = {}
        for key, item in value.items():
            if not isinstance(key, str):
                raise TypeError(f"keys of a context are strings, not {type(key).__name__} {key!r:.100} in {where}")
            plain[str.__str__(key)] = canonical_value(item, f"{where}[{key!r}]", depth + 1)
        return plain
    if getattr(value, "shape", None) == () and hasattr(value, "item") and holds_what_item_gives(value):
        return canonical_value(value.item(), where, depth + 1)
    raise TypeError(f"{where} is a {type(value).__name__}; a context holds str, int, float, bool, None, lists and dicts of them")


def sequence_key(name, context, kind=None) -> tuple:
    """(name, context, packed (name, context)) checked and in canonical form; kind: of the objects, their name is then packed as (kind, name). Raises TypeError, ValueError."""
    if not isinstance(name, str):
        raise TypeError(f"a metric's name is a string, not {type(name).__name__} {name!r:.100}")
    if not name:
        raise ValueError("a metric's name cannot be empty")
    name = str.__str__(name)
    plain = canonical_context(context)
    packed = pack((name if kind is None else (kind, name), plain))
    if len(packed) > MAX_NAME:
        raise ValueError(f"name and context take {len(packed)} bytes, the limit is {MAX_NAME}: {name!r:.60}")
    return name, plain, packed


cdef struct Number:
    double value
    uint32_t int_bit         # of the sequence's number in the record


cdef Number as_number(object value) except *:
    cdef bint is_int = False
    cdef Number number
    number.value = as_value(value, &is_int)
    number.int_bit = <uint32_t>is_int << 31
    return number


cdef object as_numbers(dict values, Number *numbers):
    """Converts the values of a dict. Returns None, or the TypeError that says which of them is no number."""
    cdef Py_ssize_t k = 0
    for key, value in values.items():
        try:
            numbers[k] = as_number(value)
        except TypeError as error:
            return TypeError(f"{key!r}: {error}")
        except ValueError as error:
            raise ValueError(f"{key!r}: {error}") from None
        k += 1
    return None


def kind_label(kind) -> str:
    """What a sequence holds, for people. kind: None for numbers; of objects (kind, whether in lists)."""
    if kind is None:
        return "numbers"
    return f"lists of {kind[0]}" if kind[1] else f"single {kind[0]}"


cdef bint all_plain(dict context):
    """Whether it holds nothing but str: str, int, float, bool or None, which never change."""
    for k, v in context.items():
        if type(k) is not str or type(v) not in PLAIN:
            return False
    return True


cdef object cache_key(dict context):
    """A hashable stand-in for a context of plain values, types included: True, 1 and 1.0 are equal and hash alike."""
    return frozenset([(k, type(v), v) for k, v in context.items()])


# -- recording -----------------------------------------------------------------------------------------------------------


cdef class _StepCounter:
    """Where the counting of a sequence's steps stands, for all recorders that a process has on a run: two points of one writer at one step would be one."""

    cdef int64_t next_step
    cdef bint exhausted      # the greatest step there is has been used

    cdef int advance(self, int64_t step) except -1:
        if step == MAX_STEP:
            self.exhausted = True
        elif step >= self.next_step:
            self.next_step = step + 1
        return 0


cdef class _Names:
    """The sequences of one context: by name, and those of the dict tracked last, in its order."""

    cdef dict by_name        # name -> SequenceWriter
    cdef list last_keys
    cdef list last_sequences

    def __cinit__(self):
        self.by_name = {}
        self.last_keys = []

    cdef bint filled(self, dict values, Number *numbers) noexcept:
        """Whether the keys are those of last time and the values plain floats and ints; then they are in `numbers`. Runs no Python code."""
        cdef Py_ssize_t at = 0, k = 0
        cdef PyObject *key
        cdef PyObject *value
        cdef int overflow = 0
        cdef int64_t number
        if len(values) != len(self.last_keys):
            return False
        while PyDict_Next(values, &at, &key, &value):
            if key != <PyObject *>self.last_keys[k]:
                return False
            if PyFloat_CheckExact(<object>value):
                numbers[k].value = PyFloat_AS_DOUBLE(<object>value)
                numbers[k].int_bit = 0
            elif PyLong_CheckExact(<object>value):
                number = PyLong_AsLongLongAndOverflow(<object>value, &overflow)
                if overflow or number > MAX_EXACT or number < -MAX_EXACT:
                    return False
                numbers[k].value = <double>number
                numbers[k].int_bit = <uint32_t>1 << 31
            else:
                return False
            k += 1
        return True


cdef class _Seen:
    """A context of plain values and its sequences. The very same objects are the same context: no hash, no comparison of types."""

    cdef tuple items         # key, value, key, value …
    cdef _Names names

    cdef bint are(self, dict context) noexcept:
        cdef Py_ssize_t at = 0, k = 0
        cdef PyObject *key
        cdef PyObject *value
        if 2 * len(context) != len(self.items):
            return False
        while PyDict_Next(context, &at, &key, &value):
            if key != <PyObject *>self.items[k] or value != <PyObject *>self.items[k + 1]:
                return False
            k += 2
        return True


cdef class SequenceWriter:
    """A handle on one (run, name, context) that tracks without looking it up."""

    cdef readonly str name
    cdef readonly dict context
    cdef bytes packed
    cdef unsigned char kind  # NUMBERS or OBJECTS
    cdef Recorder recorder
    cdef uint64_t epoch      # of the journal, when this was declared
    cdef uint32_t number
    cdef _StepCounter counter

    def track(self, value, step=None, epoch=None) -> None:
        """Appends one point. value: one number; step: an integer, by default one more than the greatest so far; epoch: a number."""
        cdef bint is_int = False
        cdef double number = as_value(value, &is_int)
        if self.kind != NUMBERS:
            raise TypeError(f"{self.name!r} {self.context!r} of run {self.recorder.run_hash} holds objects by now, it does not take numbers")
        self.recorder.write_one(self, number, is_int, step, epoch)

    cdef int64_t auto_step(self) except? -1:
        if self.counter.exhausted:
            raise ValueError(f"metric {self.name!r} has used the greatest step there is (2**63 - 1); give a step")
        return self.counter.next_step


cdef class Recorder:
    """Writes the numbers of one run into its process's journal.

    last_steps: None for a new run; for a resumed one a function (name, packed) -> greatest step recorded so far or None, which notes the kinds of what it finds.
    """

    cdef readonly JournalWriter journal
    cdef readonly uint32_t number
    cdef readonly str run_hash
    cdef bytes hash_bytes
    cdef public object last_steps
    cdef public object counters       # a dict: packed (name, context) -> _StepCounter
    cdef public object kinds          # a dict: packed (name, context) -> (None for numbers or (kind of objects, whether in lists), its SequenceWriter or None)
    cdef public bint closed
    cdef public bint power            # force each write to the disk
    cdef uint64_t open_epoch          # of the journal, when the run was last declared
    cdef bint inherited
    cdef bint edits                   # it changes properties of the run without opening it
    cdef readonly uint64_t since      # the order of its first opening, that of the run's creation where it only edits; 0 before
    cdef _Names plain                 # of the empty context
    cdef list seen                    # contexts met of late
    cdef dict names_by_context        # cache key of a context -> _Names
    cdef dict names_by_packed         # packed context -> the same

    def __cinit__(self, JournalWriter journal, uint32_t number, str run_hash, bint power=False, uint64_t edits_since=0):
        self.journal = journal
        self.number = number
        self.run_hash = run_hash
        self.hash_bytes = run_hash.encode()
        self.power = power
        self.edits = edits_since != 0
        self.since = edits_since
        self.counters = {}
        self.kinds = {}
        self.plain = _Names()
        self.seen = [None] * SEEN
        self.names_by_context = {}
        self.names_by_packed = {pack(({},)): self.plain}

    def opened(self) -> None:
        """Tells that the run is declared in the journal's present segment."""
        self.open_epoch = self.journal.epoch

    def was_inherited(self) -> None:
        """Tells that this process got the run through a fork: it declares it so on first use."""
        self.inherited = True

    @property
    def is_open_here(self) -> bool:
        """Whether the run is declared in the journal's present segment."""
        return self.open_epoch == self.journal.epoch

    @property
    def is_inherited(self) -> bool:
        return self.inherited

    def append(self, records) -> int:
        """Appends [(type, payload), …] in one group, after declaring the run if need be; returns the group's order."""
        cdef JournalWriter journal = self.journal
        cdef uint64_t epoch = 0, order = 0
        records = list(records)
        while not order:  # a rotation may come between looking at the epoch and taking the mutex, as may another thread's while this one waits for it
            if self.closed:
                raise RunClosedError(f"run {self.run_hash} is closed; open it again with Run({self.run_hash!r})")
            if journal.closed:  # by a fork: the writer, told so here, marks the run as inherited before it is declared
                journal.acquire()
                journal.release()
            epoch = journal.epoch
            opening = [] if self.open_epoch == epoch else [(KIND_OPEN, self.open_payload(False))]
            order = journal.append(opening + records, self.power, epoch)
        self.open_epoch = epoch
        if not self.since:
            self.since = order
        return order

    def open_payload(self, bint continued) -> bytes:
        """What declares the run. From the second time on it says since when this recorder has the run open: a run that was deleted later is not its own."""
        cdef int flags = CONTINUED * continued | INHERITED * self.inherited | EDITED * self.edits | SINCE * (self.since != 0)
        return self.number.to_bytes(4, "little") + bytes([flags]) + self.hash_bytes + (self.since.to_bytes(8, "little") if self.since else b"")

    # -- finding sequences ----

    cdef _Names names_of(self, object context):
        cdef Py_ssize_t at = 0
        cdef PyObject *key
        cdef PyObject *value
        cdef size_t slot = 0
        cdef _Seen seen
        if context is None:
            return self.plain
        if type(context) is not dict:
            return self.names_of_canonical(context)
        if len(<dict>context) == 0:
            return self.plain
        while PyDict_Next(context, &at, &key, &value):
            slot += (<size_t>key >> 4) + (<size_t>value >> 5)
        slot &= SEEN - 1
        seen = <_Seen>self.seen[slot]
        if seen is not None and seen.are(<dict>context):
            return seen.names
        if not all_plain(<dict>context):
            return self.names_of_canonical(context)
        seen = _Seen.__new__(_Seen)
        seen.items = tuple([part for item in (<dict>context).items() for part in item])
        seen.names = self.names_of_plain(<dict>context)
        self.seen[slot] = seen
        return seen.names

    cdef _Names names_of_plain(self, dict context):
        key = cache_key(context)
        cdef PyObject *found = PyDict_GetItemWithError(self.names_by_context, key)
        if found != NULL:
            return <_Names>found
        names = self.names_of_canonical(context)
        self.names_by_context[key] = names
        return names

    cdef _Names names_of_canonical(self, object context):
        packed = pack((canonical_context(context),))
        names = self.names_by_packed.get(packed)
        return self.names_by_packed.setdefault(packed, _Names()) if names is None else names

    cdef SequenceWriter find(self, object name, object context):
        cdef _Names names = self.names_of(context)
        cdef PyObject *found
        if type(name) is str:
            found = PyDict_GetItemWithError(names.by_name, name)
            if found != NULL:
                return <SequenceWriter>found
        return self.add(names.by_name, name, context)

    cdef list find_all(self, _Names names, dict values, object context):
        cdef list found = []
        cdef PyObject *entry
        for key in values:
            entry = PyDict_GetItemWithError(names.by_name, key) if type(key) is str else NULL
            found.append(<SequenceWriter>entry if entry != NULL else self.add(names.by_name, key, context))
        names.last_keys, names.last_sequences = list(values), found
        return found

    cdef SequenceWriter add(self, dict names, object name, object context, tuple kind=None):
        """kind: None for numbers; of objects (kind, whether in lists)."""
        cdef SequenceWriter s
        plain_name, plain_context, packed = sequence_key(name, context, None if kind is None else kind[0])
        held = plain_name if kind is None else (*kind, plain_name)
        s = names.get(held)
        if s is not None:
            return s
        s = SequenceWriter.__new__(SequenceWriter)
        s.name, s.context, s.packed, s.recorder = plain_name, plain_context, packed, self
        s.kind = NUMBERS if kind is None else OBJECTS
        last = None if self.last_steps is None else self.last_steps(plain_name, packed)
        if kind is None or kind[0] not in UNCLAIMED:
            self.claim(pack((plain_name, plain_context)), s, kind)
        s.counter = self.counters.setdefault(packed, _StepCounter.__new__(_StepCounter))
        if last is not None:
            s.counter.advance(last)
        return names.setdefault(held, s)

    cdef int claim(self, bytes key, SequenceWriter s, tuple kind) except -1:
        """Demands that a name and context hold one kind of things. What was never written holds nothing."""
        known = self.kinds.setdefault(key, (kind, s))
        held, first = known
        if held == kind:
            return 0
        if first is not None and (<SequenceWriter>first).epoch == 0:
            (<SequenceWriter>first).kind = NOTHING
            (<SequenceWriter>first).recorder.forget(<SequenceWriter>first)
            self.kinds[key] = (kind, s)
            return 0
        raise TypeError(f"{s.name!r} {s.context!r} of run {self.run_hash} holds {kind_label(held)}, it does not take {kind_label(kind)}: use another name")

    cdef int forget(self, SequenceWriter s) except -1:
        """Lets the next look-up find another in its place."""
        cdef _Names names = self.names_of(s.context)
        for key in [key for key, held in names.by_name.items() if held is s]:
            del names.by_name[key]
        names.last_keys, names.last_sequences = [], []
        return 0

    def sequence(self, name, context=None) -> SequenceWriter:
        """The handle on (name, context)."""
        return self.find(name, context)

    # -- track ----

    def track(self, value, name=None, step=None, epoch=None, context=None) -> None:
        """As `Tracking.track`, of numbers alone."""
        error = self.put(value, name, step, epoch, context)
        if error is not None:
            raise error

    cdef object put(self, object value, object name, object step, object epoch, object context):
        """Writes a number, or a dict of numbers. Returns None, or, when nothing was written, the TypeError that says what is no number."""
        cdef bint is_int = False
        cdef double number = 0.0
        if type(value) is dict:
            return self.put_dict(<dict>value, name, step, epoch, context)
        if PyFloat_CheckExact(value):
            number = PyFloat_AS_DOUBLE(value)
        elif hasattr(value, "items") and hasattr(value, "keys"):
            return self.put_dict(dict(value), name, step, epoch, context)
        elif name is not None:
            try:
                number = as_value(value, &is_int)
            except TypeError as error:
                return error
        if name is None:
            raise ValueError("track() needs a name: run.track(value, name='loss'), or a dict {name: value}")
        self.write_one(self.find(name, context), number, is_int, step, epoch)

    def track_objects(self, kind, name, records, count, in_list, step=None, epoch=None, context=None) -> None:
        """Records the objects of one step, all at once. kind: what they are. records: payloads of OBJECT records but for the sequence's number. count: how many objects; in_list:
        whether they were given as a list. Raises as `track`."""
        if name is None:
            raise ValueError("track() needs a name: run.track(value, name='loss'), or a dict {name: value}")
        self.track_together([(name, (kind, bool(in_list)), count, records)], step, epoch, context)

    def track_together(self, entries, step=None, epoch=None, context=None) -> None:
        """Records what several names get at one step, all at once. entries: (name, None, number, None) of a number; (name, (kind, whether in a list), count, records) of objects, records
        as in `track_objects`. Raises as `track`."""
        cdef JournalWriter j = self.journal
        cdef list plain = list(entries), found = [], objects = []
        cdef Py_ssize_t count = len(plain), k = 0
        cdef Number *numbers
        cdef double at_epoch = 0.0
        cdef int64_t shared = 0
        cdef unsigned char flags = 0
        if count == 0:
            return
        numbers = <Number *>malloc(count * sizeof(Number))
        if numbers == NULL:
            raise MemoryError
        try:
            for name, kind, value, records in plain:
                numbers[k] = as_number(value)
                if kind is None:
                    found.append(self.find(name, context))
                else:
                    numbers[k].int_bit = <uint32_t>1 << 31 if kind[1] else 0
                    found.append(self.add(self.names_of(context).by_name, name, context, kind))
                objects.append(None if records is None else list(records))
                k += 1
            if step is not None:
                shared = as_step(step)
                flags = 1
            if epoch is not None:
                at_epoch = as_epoch(epoch)
                flags |= 2
            self.begin()
            try:
                self.write_many(found, numbers, shared, at_epoch, flags, objects)
            finally:
                j.release_buffer()
                j.release()
        finally:
            free(numbers)

    cdef int begin(self) except -1:
        """Takes the journal's mutex. What follows must not run Python code before it is released."""
        if self.closed:
            raise RunClosedError(f"run {self.run_hash} is closed; open it again with Run({self.run_hash!r})")
        return self.journal.acquire()

    cdef size_t put_open(self, size_t at, uint32_t *index, uint64_t order) except? 0:
        """Declares the run at `at` of the buffer if it must be; returns where the next record goes."""
        cdef JournalWriter j = self.journal
        cdef size_t size = PyBytes_GET_SIZE(self.hash_bytes), length = 5 + size + (8 if self.since else 0)
        if self.open_epoch == j.epoch:
            return at
        j.reserve(at + HEADER + length)
        put_u32(j.buffer + at + HEADER, self.number)
        j.buffer[at + HEADER + 4] = (INHERITED if self.inherited else 0) | (SINCE if self.since else 0)
        memcpy(j.buffer + at + HEADER + 5, PyBytes_AS_STRING(self.hash_bytes), size)
        if self.since:
            put_u64(j.buffer + at + HEADER + 5 + size, self.since)
        j.finish_record(at, KIND_OPEN, length, True, index[0], order)
        index[0] += 1
        return at + HEADER + length

    cdef size_t put_sequence(self, SequenceWriter s, uint32_t number, size_t at, uint32_t *index, uint64_t order) except? 0:
        cdef JournalWriter j = self.journal
        cdef size_t length = 9 + PyBytes_GET_SIZE(s.packed)
        j.reserve(at + HEADER + length)
        put_u32(j.buffer + at + HEADER, number)
        put_u32(j.buffer + at + HEADER + 4, self.number)
        j.buffer[at + HEADER + 8] = s.kind
        memcpy(j.buffer + at + HEADER + 9, PyBytes_AS_STRING(s.packed), length - 9)
        j.finish_record(at, KIND_SEQUENCE, length, True, index[0], order)
        index[0] += 1
        return at + HEADER + length

    cdef int note_declarations(self, uint64_t base, size_t end) except -1:
        """Remembers where OPEN and SEQUENCE records of the group just written lie: they take up the first `end` bytes of the buffer."""
        cdef JournalWriter j = self.journal
        cdef size_t at = 0
        cdef unsigned char *p
        if not self.since:
            self.since = j.order
        while at < end:
            j.note_meta(base + at)
            p = j.buffer + at + 8
            at += HEADER + (<size_t>p[0] | (<size_t>p[1] << 8) | (<size_t>p[2] << 16))
        return 0

    cdef int write_one(self, SequenceWriter s, double value, bint is_int, object step, object epoch) except -1:
        cdef JournalWriter j = self.journal
        cdef int64_t at_step
        cdef double at_epoch = 0.0
        cdef uint64_t now, order, base
        cdef size_t at = 0, start, length
        cdef uint32_t index = 0, number
        cdef unsigned char *p
        cdef unsigned char flags = 0
        if step is None:
            at_step = s.auto_step()
        else:
            at_step = as_step(step)
            flags = 1
        if epoch is not None:
            at_epoch = as_epoch(epoch)
            flags |= 2
        self.begin()
        try:
            if not flags & 1:
                at_step = s.auto_step()  # again: acquire() may have run others
            now = aimlite_now_us()
            order = now if now > j.order else j.order
            if order != now:
                flags |= 4
            number = s.number
            if s.epoch != j.epoch:
                at = self.put_open(at, &index, order)
                number = j.sequences
                at = self.put_sequence(s, number, at, &index, order)
                j.reserve_sequence(number)
            elif self.open_epoch != j.epoch:
                at = self.put_open(at, &index, order)
            start = at
            j.reserve(start + HEADER + 64)
            p = j.buffer + start + HEADER
            p[0] = flags
            put_u64(p + 1, <uint64_t>at_step)
            length = 9
            if flags & 2:
                put_f64(p + length, at_epoch)
                length += 8
            if flags & 4:
                put_u64(p + length, now)
                length += 8
            put_u32(p + length, number | (<uint32_t>(1 if is_int else 0) << 31))
            put_f64(p + length + 4, value)
            length += 12
            j.finish_record(start, KIND_POINTS, length, False, index, order)
            base = j.offset
            j.write_out(start + HEADER + length, self.power)
            j.records += index + 1
            j.order = order
            if start:
                self.note_declarations(base, start)
                self.open_epoch = j.epoch
                if s.epoch != j.epoch:
                    s.epoch = j.epoch
                    s.number = number
                    j.points[number] = 0
                    j.sequences += 1
            j.points[number] += 1
            s.counter.advance(at_step)
        finally:
            j.release()
        return 0

    cdef object put_dict(self, dict values, object name, object step, object epoch, object context):
        cdef JournalWriter j = self.journal
        cdef Py_ssize_t count = len(values)
        cdef Number stack[STACK_VALUES]
        cdef Number *numbers = stack
        cdef list found
        cdef _Names names
        cdef unsigned char flags = 0
        cdef int64_t shared = 0
        cdef double at_epoch = 0.0
        if name is not None:
            raise ValueError(f"a dict of values has its own names; name={name!r:.60} must be left out")
        if count == 0:
            return None
        names = self.names_of(context)
        if count > STACK_VALUES:
            numbers = <Number *>malloc(count * sizeof(Number))
            if numbers == NULL:
                raise MemoryError
        try:
            if names.filled(values, numbers):
                found = names.last_sequences
            else:
                values = values.copy()  # converting a value may run Python code that changes the caller's dict
                error = as_numbers(values, numbers)
                if error is not None:
                    return error
                found = self.find_all(names, values, context)
            if step is not None:
                shared = as_step(step)
                flags = 1
            if epoch is not None:
                at_epoch = as_epoch(epoch)
                flags |= 2
            self.begin()
            try:
                self.write_many(found, numbers, shared, at_epoch, flags)
            finally:
                j.release()
        finally:
            if numbers != stack:
                free(numbers)
        return None

    cdef size_t put_objects(self, list payloads, uint32_t number, size_t at, uint32_t *index, uint64_t order) except? 0:
        cdef JournalWriter j = self.journal
        cdef bytes payload
        cdef size_t length
        for payload in payloads:
            length = 4 + PyBytes_GET_SIZE(payload)
            j.reserve(at + HEADER + length)
            put_u32(j.buffer + at + HEADER, number)
            memcpy(j.buffer + at + HEADER + 4, PyBytes_AS_STRING(payload), length - 4)
            j.finish_record(at, KIND_OBJECT, length, True, index[0], order)
            index[0] += 1
            at += HEADER + length
        return at

    cdef int write_many(self, list found, Number *numbers, int64_t shared, double at_epoch, unsigned char flags, list objects=None) except -1:
        """objects: payloads of OBJECT records of each of the sequences found, None of one of numbers; their order is theirs alone."""
        cdef JournalWriter j = self.journal
        cdef SequenceWriter s
        cdef Py_ssize_t k, count = len(found)
        cdef uint32_t index = 0, number, new = 0
        cdef size_t at, start, length
        cdef uint64_t now = aimlite_now_us(), base
        cdef uint64_t order = now if now > j.order else j.order
        cdef unsigned char *p
        if objects is not None and order == j.order:
            order += 1
        if order != now:
            flags |= 4
        if not flags & 1:
            s = <SequenceWriter>found[0]
            shared = s.auto_step()
            for k in range(1, count):
                s = <SequenceWriter>found[k]
                if s.auto_step() != shared:
                    flags |= 8
        at = self.put_open(0, &index, order)
        for k in range(count):
            s = <SequenceWriter>found[k]
            if s.epoch != j.epoch:
                at = self.put_sequence(s, j.sequences + new, at, &index, order)
                new += 1
        if new:
            j.reserve_sequence(j.sequences + new - 1)
        if objects is not None:
            new = 0
            for k in range(count):
                s = <SequenceWriter>found[k]
                number = s.number
                if s.epoch != j.epoch:
                    number = j.sequences + new
                    new += 1
                if objects[k] is not None:
                    at = self.put_objects(<list>objects[k], number, at, &index, order)
            if j.offset + at > 0xFFFFFFFF - (1 << 16):
                raise ValueError(f"the objects of one track() call take less than 4 GiB, not {at} bytes")
        start = at
        j.reserve(start + HEADER + 32 + 20 * <size_t>count)
        p = j.buffer + start + HEADER
        p[0] = flags
        length = 1
        if not flags & 8:
            put_u64(p + length, <uint64_t>shared)
            length += 8
        if flags & 2:
            put_f64(p + length, at_epoch)
            length += 8
        if flags & 4:
            put_u64(p + length, now)
            length += 8
        new = 0
        for k in range(count):
            s = <SequenceWriter>found[k]
            if s.epoch != j.epoch:
                number = j.sequences + new
                new += 1
            else:
                number = s.number
            put_u32(p + length, number | numbers[k].int_bit)
            length += 4
            if flags & 8:
                put_u64(p + length, <uint64_t>s.counter.next_step)
                length += 8
            put_f64(p + length, numbers[k].value)
            length += 8
        if length > 0xFFFFFF:
            raise ValueError(f"one track() call takes at most some 800,000 values, not {count}")
        j.finish_record(start, KIND_POINTS, length, False, index, order)
        base = j.offset
        j.write_out(start + HEADER + length, self.power)
        j.records += index + 1
        j.order = order
        if start:
            self.note_declarations(base, start)
            self.open_epoch = j.epoch
        for k in range(count):
            s = <SequenceWriter>found[k]
            if s.epoch != j.epoch:
                s.epoch = j.epoch
                s.number = j.sequences
                j.points[s.number] = 0
                j.sequences += 1
            j.points[s.number] += 1
            s.counter.advance(s.counter.next_step if flags & 8 else shared)
        return 0

    # -- columns ----

    def track_columns(self, SequenceWriter s, const double[::1] values, bint are_ints, steps, epochs, times) -> None:
        """Appends n points as one group, all or nothing. values: float64[n]. steps: int64[n] or None (counted on). epochs: float64[n], a float or None. times: int64[n], µs, or
        None (now). are_ints: the caller had integers."""
        cdef JournalWriter j = self.journal
        cdef Py_ssize_t n = values.shape[0], k
        cdef const int64_t[::1] step_column
        cdef const double[::1] epoch_column
        cdef const int64_t[::1] time_column
        cdef const int64_t *step_data = NULL
        cdef const double *epoch_data = NULL
        cdef const int64_t *time_data = NULL
        cdef double epoch = 0.0
        cdef bint one_epoch = False
        cdef int64_t greatest
        if n == 0:
            return
        if n > 1 << 27:
            raise ValueError(f"one track_columns() call takes at most 2**27 points, not {n}: split it")
        if steps is not None:
            step_column = steps
            step_data = &step_column[0]
        if isinstance(epochs, float):
            epoch = epochs
            one_epoch = True
        elif epochs is not None:
            epoch_column = epochs
            epoch_data = &epoch_column[0]
        if times is not None:
            time_column = times
            time_data = &time_column[0]
        self.begin()
        try:
            self.write_columns(s, &values[0], are_ints, step_data, epoch_data, one_epoch, epoch, time_data, n)
        finally:
            j.release_buffer()
            j.release()

    cdef int write_columns(self, SequenceWriter s, const double *values, bint are_ints, const int64_t *steps, const double *epochs, bint one_epoch, double epoch,
                           const int64_t *times, Py_ssize_t n) except -1:
        cdef JournalWriter j = self.journal
        cdef uint64_t now = aimlite_now_us(), base
        cdef uint64_t order = now if now > j.order else j.order
        cdef uint32_t index = 0, number = s.number
        cdef size_t at, start, piece, k, width
        cdef size_t done = 0, total = <size_t>n
        cdef uint64_t first, stride
        cdef int64_t greatest
        cdef bint regular, single
        cdef float narrow
        cdef double wide
        cdef unsigned char flags
        cdef unsigned char *p
        if steps == NULL:
            first = <uint64_t>s.auto_step()
            greatest = MAX_STEP - (n - 1)
            if <int64_t>first > greatest:
                raise ValueError(f"{n} points after step {<int64_t>first - 1} would pass the greatest step there is (2**63 - 1)")
        at = self.put_open(0, &index, order)
        if s.epoch != j.epoch:
            number = j.sequences
            at = self.put_sequence(s, number, at, &index, order)
            j.reserve_sequence(number)
        start = at
        piece = RECORD_BYTES // (8 + (8 if steps != NULL else 0) + (8 if epochs != NULL else 0) + (8 if times != NULL else 0))
        greatest = 0
        while done < total:
            if piece > total - done:
                piece = total - done
            j.reserve(at + HEADER + 64 + 32 * piece)
            p = j.buffer + at + HEADER
            flags = 128 if are_ints else 0
            put_u32(p + 1, number)
            put_u32(p + 5, <uint32_t>piece)
            width = 9
            if steps == NULL:
                flags |= 8
                put_u64(p + width, <uint64_t>s.counter.next_step + done)
                put_u64(p + width + 8, 1)
                width += 16
                greatest = s.counter.next_step + <int64_t>(done + piece - 1)
            else:
                flags |= 1
                regular = True
                stride = <uint64_t>steps[done + 1] - <uint64_t>steps[done] if piece > 1 else 0
                if done == 0:
                    greatest = steps[0]
                for k in range(piece):
                    if steps[done + k] > greatest:
                        greatest = steps[done + k]
                    if <uint64_t>steps[done + k] != <uint64_t>steps[done] + k * stride:
                        regular = False
                if regular:
                    flags |= 8
                    put_u64(p + width, <uint64_t>steps[done])
                    put_u64(p + width + 8, stride)
                    width += 16
                else:
                    memcpy(p + width, steps + done, 8 * piece)
                    width += 8 * piece
            if epochs != NULL:
                flags |= 16
                memcpy(p + width, epochs + done, 8 * piece)
                width += 8 * piece
            elif one_epoch:
                flags |= 2
                put_f64(p + width, epoch)
                width += 8
            if times != NULL:
                flags |= 32
                memcpy(p + width, times + done, 8 * piece)
                width += 8 * piece
            elif order != now:
                flags |= 4
                put_u64(p + width, now)
                width += 8
            single = True
            for k in range(piece):
                wide = values[done + k]
                narrow = <float>wide
                if <double>narrow != wide:  # NaN too: its payload is kept by float64 alone
                    single = False
                    break
            if single:
                flags |= 64
                for k in range(piece):
                    narrow = <float>values[done + k]
                    memcpy(p + width + 4 * k, &narrow, 4)
                width += 4 * piece
            else:
                memcpy(p + width, values + done, 8 * piece)
                width += 8 * piece
            p[0] = flags
            done += piece
            j.finish_record(at, KIND_COLUMNS, width, done < total, index, order)
            index += 1
            at += HEADER + width
        if j.offset + at > 0xFFFFFFFF:
            raise ValueError("one track_columns() call writes less than 4 GiB: split it")
        base = j.offset
        j.write_out(at, self.power)
        j.records += index
        j.order = order
        if start:
            self.note_declarations(base, start)
            self.open_epoch = j.epoch
            if s.epoch != j.epoch:
                s.epoch = j.epoch
                s.number = number
                j.points[number] = 0
                j.sequences += 1
        j.points[number] += <uint32_t>n
        s.counter.advance(greatest)
        return 0


@cython.auto_pickle(False)
cdef class Tracking:
    """The part of a run that records numbers. In C, because a frame of Python's would take as long as the rest of a call but the system call."""

    cdef public Recorder _recorder    # None: nothing can be written

    @cython.annotation_typing(False)
    def track(
        self,
        value: Any,
        name: str | None = None,
        step: int | None = None,
        epoch: float | None = None,
        *,
        context: Mapping[str, Any] | None = None,
    ) -> None:
        """Records one point, or one of each metric of a dict, all at once.

        value: a number (Python, numpy scalar, array or tensor of one element), or {name: number} with `name` left out. step: an integer;
        None counts on from the greatest step of this metric. epoch: a number. context: a dict that tells metrics of one name apart. When
        it has returned the data survives the process.
        Raises TypeError, ValueError, RunClosedError, ReadOnlyError, OSError (full disk: nothing of the call was kept, all before it was).
        """
        if self._recorder is None:
            raise self._not_writable()
        error = self._recorder.put(value, name, step, epoch, context)
        if error is not None:
            self._track_other(value, name, step, epoch, context, error)
