# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""Documents as bytes, and back. ``_doc_py`` is the readable twin; the form is *Documents* in ``docs/format.md``."""

cimport cython
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.dict cimport PyDict_Next
from cpython.buffer cimport PyBUF_SIMPLE, PyBuffer_Release, PyObject_GetBuffer
from cpython.mem cimport PyMem_RawFree, PyMem_RawRealloc
from cpython.object cimport PyObject
from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t
from libc.string cimport memcmp, memcpy

from ._scalars import damaged, plain, read, written

__all__ = ["decode", "encode", "judge"]

cdef extern from "Python.h":
    int64_t PyLong_AsLongLongAndOverflow(object value, int* overflow) except? -1
    const char* PyUnicode_AsUTF8AndSize(object value, Py_ssize_t* size) except NULL
    object PyUnicode_DecodeUTF8(const char* data, Py_ssize_t size, const char* errors)
    object PyUnicode_AsEncodedString(object value, const char* encoding, const char* errors)

cdef enum:
    DEEPEST = 200        # arrays and objects inside of each other
    NULL_TAG = 0
    FALSE_TAG = 1
    TRUE_TAG = 2
    INT_TAG = 3
    FLOAT_TAG = 5
    TEXT_TAG = 6
    BYTES_TAG = 7
    LONG = 4
    DECIMAL = 10
    ARRAY_TAG = 16
    OBJECT_TAG = 17
    KNOWN = 512          # names of fields that are remembered, by their bytes
    SHORT = 24           # bytes of a name that is
    KEPT = 1 << 16       # bytes of room that are kept for the next value that is written

cdef uint64_t MOST = (<uint64_t>1 << 32) - 2  # bytes of a value
cdef uint64_t NAN_BITS = <uint64_t>0x7FF8 << 48

DEPTH = DEEPEST


# -- writing -------------------------------------------------------------------

@cython.final
@cython.no_gc
cdef class Writer:
    """Bytes that grow."""
    cdef char* at
    cdef uint64_t used, room

    def __dealloc__(self):
        PyMem_RawFree(self.at)

    cdef char* more(self, uint64_t size) except NULL:
        """Room for so many bytes behind what there is, which count as used."""
        cdef uint64_t room
        cdef char* fresh
        if size > MOST or self.used + size > MOST:
            raise ValueError("a value has less than 4 GiB")
        if self.used + size > self.room:
            room = (self.used + size) * 2 + 64
            fresh = <char*>PyMem_RawRealloc(self.at, room)
            if fresh == NULL:
                raise MemoryError()
            self.at, self.room = fresh, room
        self.used += size
        return self.at + self.used - size

    cdef int sized(self, int tag, const char* data, uint64_t size) except -1:
        """A tag (0: none), a length and the bytes."""
        cdef uint32_t length = <uint32_t>size
        cdef char* to = self.more(size + 4 + (tag != 0))
        if tag:
            to[0] = <char>tag
            to += 1
        memcpy(to, &length, 4)
        memcpy(to + 4, data, size)
        return 0

    cdef int text(self, int tag, object value) except -1:
        cdef Py_ssize_t size = 0
        cdef const char* data
        try:
            data = PyUnicode_AsUTF8AndSize(value, &size)
        except UnicodeEncodeError:
            value = PyUnicode_AsEncodedString(value, "utf-8", "surrogatepass")
            data, size = PyBytes_AS_STRING(value), PyBytes_GET_SIZE(value)
        return self.sized(tag, data, <uint64_t>size)

    cdef int value(self, object value, int depth) except -1:
        cdef object kind = type(value)
        cdef int overflow = 0
        cdef int64_t number
        cdef double real
        cdef char* to
        cdef bytes data
        if kind is str:
            return self.text(TEXT_TAG, value)
        if kind is int:
            number = PyLong_AsLongLongAndOverflow(value, &overflow)
            if not overflow:
                to = self.more(9)
                to[0] = INT_TAG
                memcpy(to + 1, &number, 8)
                return 0
        elif kind is float:
            real = value
            to = self.more(9)
            to[0] = FLOAT_TAG
            if real != real:
                memcpy(to + 1, &NAN_BITS, 8)
            else:
                memcpy(to + 1, &real, 8)
            return 0
        elif value is None or kind is bool:
            to = self.more(1)
            to[0] = NULL_TAG if value is None else TRUE_TAG if value is True else FALSE_TAG
            return 0
        elif kind is dict:
            return self.object(value, depth)
        elif kind is list:
            return self.array(value, depth)
        elif kind is bytes:
            return self.sized(BYTES_TAG, PyBytes_AS_STRING(value), <uint64_t>PyBytes_GET_SIZE(value))
        return self.other(value, depth)

    cdef int other(self, object value, int depth) except -1:
        cdef bytes data
        try:
            data = written(value)
        except TypeError:
            other = plain(value)
            if type(other) is not type(value):
                return self.value(other, depth)
            data = written(other)
        memcpy(self.more(<uint64_t>PyBytes_GET_SIZE(data)), PyBytes_AS_STRING(data), PyBytes_GET_SIZE(data))
        return 0

    cdef uint64_t begin(self, int tag, uint64_t count, int depth) except? 0:
        """The head of an array or object, whose offsets are still to be written; where it begins."""
        cdef uint64_t start = self.used
        cdef char* to
        cdef uint32_t number = <uint32_t>count
        if depth >= DEEPEST:
            raise ValueError(f"it is nested more than {DEEPEST} deep")
        to = self.more(9 + 4 * count)
        to[0] = <char>tag
        memcpy(to + 5, &number, 4)
        return start

    cdef void mark(self, uint64_t start, uint64_t number) noexcept:
        """The next value is so many of the array or object that begins there."""
        cdef uint32_t offset = <uint32_t>(self.used - start)
        memcpy(self.at + start + 9 + 4 * number, &offset, 4)

    cdef void end(self, uint64_t start) noexcept:
        cdef uint32_t size = <uint32_t>(self.used - start)
        memcpy(self.at + start + 1, &size, 4)

    cdef int array(self, list values, int depth) except -1:
        cdef Py_ssize_t i, count = len(values)
        cdef uint64_t start = self.begin(ARRAY_TAG, <uint64_t>count, depth)
        for i in range(count):
            if i >= len(values):
                raise ValueError("a list has changed while it was written")
            self.mark(start, <uint64_t>i)
            self.value(values[i], depth + 1)
        self.end(start)
        return 0

    cdef int object(self, dict fields, int depth) except -1:
        cdef Py_ssize_t place = 0, count = len(fields)
        cdef uint64_t start = self.begin(OBJECT_TAG, <uint64_t>count, depth), i = 0
        cdef PyObject* name
        cdef PyObject* one
        while PyDict_Next(fields, &place, &name, &one):
            if i == <uint64_t>count or len(fields) != count:
                break
            self.mark(start, i)
            self.field(<object>name, <object>one, depth + 1)
            i += 1
        if i != <uint64_t>count or len(fields) != count:
            raise ValueError("a dict has changed while it was written")
        self.end(start)
        return 0

    cdef int field(self, object name, object value, int depth) except -1:
        """A name and a value, held meanwhile: writing other values than the common ones may run other code."""
        if not isinstance(name, str):
            raise TypeError(f"a name is a str, not {type(name).__name__}")
        self.text(0, name)
        return self.value(value, depth)


cdef Writer spare = None  # making room anew was a quarter of the time of a small document


def encode(value):
    """The bytes of a value: None, bool, int, float, str, bytes, datetime, date, Decimal, UUID, and lists, tuples (which
    read back as lists) and dicts with names of str of them. TypeError, ValueError.
    """
    global spare
    cdef Writer writer = spare
    if writer is None:
        writer = Writer()
    spare = None  # writing may run other code, which may write too
    writer.used = 0
    writer.value(value, 0)
    data = PyBytes_FromStringAndSize(writer.at, <Py_ssize_t>writer.used)
    if writer.room <= KEPT:
        spare = writer
    return data


# -- reading -------------------------------------------------------------------

cdef struct Name:
    PyObject* text
    uint32_t size
    char[SHORT] data

cdef Name[KNOWN] names


cdef object name_of(const uint8_t* at, uint32_t size):
    """The name of a field. Names repeat themselves: the same bytes are the same str while it is remembered."""
    cdef uint32_t hash = 2166136261, i
    cdef Name* known
    cdef PyObject* old
    if size > SHORT:
        return PyUnicode_DecodeUTF8(<const char*>at, size, "surrogatepass")
    for i in range(size):
        hash = (hash ^ at[i]) * 16777619
    known = &names[(hash ^ hash >> 16) & (KNOWN - 1)]
    if known.text != NULL and known.size == size and memcmp(known.data, at, size) == 0:
        return <object>known.text
    found = PyUnicode_DecodeUTF8(<const char*>at, size, "surrogatepass")
    old, known.text, known.size = known.text, <PyObject*>found, size
    memcpy(known.data, at, size)
    keep(found)
    if old != NULL:
        let_go(<object>old)
    return found


cdef extern from *:
    """
    #define snap_keep(value) Py_INCREF(value)
    #define snap_let_go(value) Py_DECREF(value)
    """
    void keep "snap_keep"(object value)
    void let_go "snap_let_go"(object value)


@cython.final
@cython.no_gc
cdef class Reader:
    """Bytes that are read, held in memory."""
    cdef const uint8_t* data
    cdef object view  # the same for what reads values that are not common

    cdef object value(self, uint64_t at, uint64_t end, int depth):
        """The value from ``at`` to ``end``."""
        cdef int tag
        cdef int64_t number
        cdef double real
        cdef uint64_t start = at + 1
        if at >= end:
            raise damaged("a value is cut off")
        tag = self.data[at]
        if tag == TEXT_TAG or tag == BYTES_TAG:
            self.must_end(start + 4 + self.size(start, end), end)
            if tag == BYTES_TAG:
                return PyBytes_FromStringAndSize(<const char*>self.data + start + 4, <Py_ssize_t>(end - start - 4))
            return self.text(start + 4, end - start - 4)
        if tag == INT_TAG or tag == FLOAT_TAG:
            if end - start < 8:
                raise damaged("a value is cut off")
            self.must_end(start + 8, end)
            if tag == INT_TAG:
                memcpy(&number, self.data + start, 8)
                return number
            memcpy(&real, self.data + start, 8)
            return real
        if tag == OBJECT_TAG:
            return self.object(at, end, depth)
        if tag == ARRAY_TAG:
            return self.array(at, end, depth)
        if tag <= TRUE_TAG:
            self.must_end(start, end)
            return None if tag == NULL_TAG else tag == TRUE_TAG
        value, used = read(tag, self.view[start:end])
        self.must_end(start + <uint64_t>used, end)
        return value

    cdef int must_end(self, uint64_t at, uint64_t end) except -1:
        if at != end:
            raise damaged("a value does not end where it must")
        return 0

    cdef object text(self, uint64_t at, uint64_t size):
        try:
            return PyUnicode_DecodeUTF8(<const char*>self.data + at, <Py_ssize_t>size, "surrogatepass")
        except UnicodeDecodeError:
            raise damaged("a text is not UTF-8") from None

    cdef uint64_t size(self, uint64_t at, uint64_t end) except? 1:
        """The length at ``at``, of bytes that must be there."""
        cdef uint32_t size
        if end - at < 4:
            raise damaged("a value is cut off")
        memcpy(&size, self.data + at, 4)
        if size > end - at - 4:
            raise damaged("a value is cut off")
        return size

    cdef uint32_t count(self, uint64_t at, uint64_t end, int depth) except? 1:
        """How many values or fields there are, after their offsets were checked."""
        cdef uint32_t size, count, i, one, other
        if depth >= DEEPEST:
            raise damaged(f"it is nested more than {DEEPEST} deep")
        if end - at < 9:
            raise damaged("a value is cut off")
        memcpy(&size, self.data + at + 1, 4)
        memcpy(&count, self.data + at + 5, 4)
        if size != end - at or 9 + 4 * <uint64_t>count > size:
            raise damaged("a size is wrong")
        one = 9 + 4 * count
        for i in range(count):
            memcpy(&other, self.data + at + 9 + 4 * <uint64_t>i, 4)
            if (other != one) if i == 0 else (other <= one):
                raise damaged("an offset is wrong")
            one = other
        if (size != one) if count == 0 else (size <= one):
            raise damaged("an offset is wrong")
        return count

    cdef uint64_t offset(self, uint64_t at, uint64_t end, uint32_t count, uint32_t number) noexcept:
        """Where one of them begins; the end, behind the last one."""
        cdef uint32_t offset
        if number >= count:
            return end
        memcpy(&offset, self.data + at + 9 + 4 * <uint64_t>number, 4)
        return at + offset

    cdef list array(self, uint64_t at, uint64_t end, int depth):
        cdef uint32_t i, count = self.count(at, end, depth)
        cdef list found = []
        for i in range(count):
            found.append(self.value(self.offset(at, end, count, i), self.offset(at, end, count, i + 1), depth + 1))
        return found

    cdef dict object(self, uint64_t at, uint64_t end, int depth):
        cdef uint32_t i, count = self.count(at, end, depth)
        cdef uint64_t start, stop, size
        cdef dict found = {}
        for i in range(count):
            start, stop = self.offset(at, end, count, i), self.offset(at, end, count, i + 1)
            size = self.size(start, stop)
            try:
                name = name_of(self.data + start + 4, <uint32_t>size)
            except UnicodeDecodeError:
                raise damaged("a text is not UTF-8") from None
            found[name] = self.value(start + 4 + size, stop, depth + 1)
        if <uint32_t>len(found) != count:
            raise damaged("two fields have one name")
        return found


def decode(data):
    """The value of these bytes, which are all of it. ValueError for damage."""
    cdef Py_buffer held
    cdef Reader reader = Reader()
    PyObject_GetBuffer(data, &held, PyBUF_SIMPLE)
    try:
        reader.data = <const uint8_t*>held.buf
        reader.view = memoryview(data).cast("B")
        return reader.value(0, <uint64_t>held.len, 0)
    finally:
        PyBuffer_Release(&held)


# -- judging many --------------------------------------------------------------

cdef enum:
    NO = 0               # it does not match
    YES = 1
    ASK = 2              # this cannot say: the value, or what is on the way, is an array, or a number of another kind

cdef struct End:
    # of a range of numbers; none: every number is beyond it
    bint there, open, whole
    int64_t number
    double real


cdef int take_end(object value, bint open, End* end) except -1:
    """A bound: an int of 64 bits, a float that is no NaN, or None."""
    end.there, end.open, end.whole = value is not None, open, type(value) is int
    if end.whole:
        end.number = value
    elif value is not None:
        end.real = value
        if end.real != end.real:
            raise ValueError("a bound is not NaN")
    return 0


cdef int against(bint whole, int64_t number, double real, const End* end) noexcept:
    """-1, 0 or 1: how a number, which is no NaN, compares with a bound, exactly."""
    if whole and end.whole:
        return (number > end.number) - (number < end.number)
    if whole:
        return whole_against(number, end.real)
    if end.whole:
        return -whole_against(end.number, real)
    return (real > end.real) - (real < end.real)


cdef int whole_against(int64_t number, double real) noexcept:
    cdef int64_t cut
    if real >= 9223372036854775808.0:
        return -1
    if real < -9223372036854775808.0:
        return 1
    cut = <int64_t>real
    if number != cut:
        return 1 if number > cut else -1
    return (real < <double>cut) - (real > <double>cut)  # what was cut off


cdef bint inside(bint whole, int64_t number, double real, const End* low, const End* high) noexcept:
    cdef int found
    if low.there:
        found = against(whole, number, real, low)
        if found < 0 or (found == 0 and low.open):
            return False
    if high.there:
        found = against(whole, number, real, high)
        if found > 0 or (found == 0 and high.open):
            return False
    return True


cdef int seek(Reader reader, tuple parts, uint64_t* at, uint64_t* end) except -1:
    """From a document to the value that a path of fields leads to: YES; NO where there is none, ASK at an array."""
    cdef uint32_t count, i
    cdef uint64_t start, stop, size
    cdef const char* name
    cdef Py_ssize_t length
    cdef bint found
    for part in parts:
        name, length = PyBytes_AS_STRING(part), PyBytes_GET_SIZE(part)
        if at[0] >= end[0]:
            raise damaged("a value is cut off")
        if reader.data[at[0]] != OBJECT_TAG:
            return ASK if reader.data[at[0]] == ARRAY_TAG else NO
        count = reader.count(at[0], end[0], 0)
        found = False
        for i in range(count):
            start, stop = reader.offset(at[0], end[0], count, i), reader.offset(at[0], end[0], count, i + 1)
            size = reader.size(start, stop)
            if size == <uint64_t>length and memcmp(reader.data + start + 4, name, <size_t>length) == 0:
                at[0], end[0] = start + 4 + size, stop
                found = True
                break
        if not found:
            return NO
    return YES


cdef int verdict(Reader reader, tuple parts, uint64_t size, bytes text, const End* low, const End* high) except -1:
    cdef uint64_t at = 0, end = size
    cdef int found = seek(reader, parts, &at, &end), tag
    cdef int64_t number = 0
    cdef double real = 0
    if found != YES:
        return found
    if at >= end:
        raise damaged("a value is cut off")
    tag = reader.data[at]
    if tag == ARRAY_TAG:
        return ASK
    if text is not None:
        if tag != TEXT_TAG:
            return NO
        size = reader.size(at + 1, end)
        return size == <uint64_t>PyBytes_GET_SIZE(text) and memcmp(reader.data + at + 5, PyBytes_AS_STRING(text), size) == 0
    if tag == INT_TAG or tag == FLOAT_TAG:
        if end - at < 9:
            raise damaged("a value is cut off")
        if tag == INT_TAG:
            memcpy(&number, reader.data + at + 1, 8)
        else:
            memcpy(&real, reader.data + at + 1, 8)
            if real != real:
                return NO
        return inside(tag == INT_TAG, number, real, low, high)
    return ASK if tag == LONG or tag == DECIMAL else NO


def judge(list documents not None, tuple parts not None, text, low, high, bint low_open, bint high_open):
    """For each document (bytes) whether the value that a path of names (bytes) leads to is this text, or with None a
    number between two bounds (None: without end): a bytearray of 0, no, 1, yes, and 2, which this does not say.
    """
    cdef Py_ssize_t i, count = len(documents)
    cdef bytearray found = bytearray(count)
    cdef Reader reader = Reader()
    cdef End lower, upper
    cdef bytes wanted = text
    for part in parts:
        if type(part) is not bytes:
            raise TypeError("names come as bytes")
    take_end(low, low_open, &lower)
    take_end(high, high_open, &upper)
    for i in range(count):
        document = documents[i]
        if type(document) is not bytes:
            raise TypeError("documents come as bytes")
        reader.data = <const uint8_t*>PyBytes_AS_STRING(document)
        found[i] = verdict(reader, parts, <uint64_t>PyBytes_GET_SIZE(document), wanted, &lower, &upper)
    return found
