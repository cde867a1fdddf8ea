# Single values: dates, stored values to Python, Python values to cells. Part of _values.pyx.

# -- dates -----------------------------------------------------------------

cdef inline bint is_leap(int year) noexcept:
    return year % 4 == 0 and (year % 100 != 0 or year % 400 == 0)


cdef inline int64_t days_of(int year, int month, int day) noexcept:
    """Days since 1970-01-01."""
    cdef int64_t before = year - 1
    return (before * 365 + before // 4 - before // 100 + before // 400 + DAYS_BEFORE[month - 1]
            + (1 if month > 2 and is_leap(year) else 0) + day - 1 - 719162)


@cython.cdivision(True)
cdef inline void split_days(int64_t days, int* year, int* month, int* day) noexcept:
    """The calendar date of days since 1970-01-01, from 0001-01-01 to 9999-12-31."""
    cdef int n = <int>(days + 719162)
    cdef int y400 = n / 146097
    n %= 146097
    cdef int y100 = n / 36524
    if y100 > 3:
        y100 = 3
    n -= y100 * 36524
    cdef int y4 = n / 1461
    n %= 1461
    cdef int y1 = n / 365
    if y1 > 3:
        y1 = 3
    n -= y1 * 365
    cdef int leap = 1 if y1 == 3 and (y4 != 24 or y100 == 3) else 0
    cdef int m = n / 29
    if m > 11:
        m = 11
    while DAYS_BEFORE[m] + (leap if m > 1 else 0) > n:
        m -= 1
    year[0] = y400 * 400 + y100 * 100 + y4 * 4 + y1 + 1
    month[0] = m + 1
    day[0] = n - DAYS_BEFORE[m] - (leap if m > 1 else 0) + 1


cdef object date_of(int64_t days):
    cdef int year, month, day
    if not -719162 <= days <= 2932896:
        return _to_date(days)  # raises
    split_days(days, &year, &month, &day)
    return date_new(year, month, day)


@cython.cdivision(True)
cdef object datetime_of(int64_t micros):
    cdef int year, month, day
    cdef int64_t days = micros / DAY_MICROS
    cdef int64_t rest = micros % DAY_MICROS
    if rest < 0:
        rest += DAY_MICROS
        days -= 1
    if not -719162 <= days <= 2932896:
        return _to_datetime(micros)  # raises
    split_days(days, &year, &month, &day)
    cdef int micro = <int>(rest % 1000000)
    cdef int seconds = <int>(rest / 1000000)
    return datetime_new(year, month, day, seconds / 3600, seconds / 60 % 60, seconds % 60, micro, UTC)


# -- stored values to Python -----------------------------------------------

cdef inline object physical_fixed(int code, const char* at):
    if code == I32 or code == DATE:
        return (<int32_t*>at)[0]
    if code == I64 or code == DATETIME:
        return (<int64_t*>at)[0]
    if code == F64:
        return (<double*>at)[0]
    if code == U8 or code == BOOL:
        return (<uint8_t*>at)[0]
    if code == F32:
        return <double>(<float*>at)[0]
    if code == I8:
        return (<int8_t*>at)[0]
    if code == I16:
        return (<int16_t*>at)[0]
    if code == U16:
        return (<uint16_t*>at)[0]
    if code == U32:
        return (<uint32_t*>at)[0]
    return (<uint64_t*>at)[0]


cdef object logical_fixed(int code, const char* at):
    if code == BOOL:
        return True if at[0] else False
    if code == DATE:
        return date_of((<int32_t*>at)[0])
    if code == DATETIME:
        return datetime_of((<int64_t*>at)[0])
    return physical_fixed(code, at)


cdef object logical_bytes(int code, const char* at, Py_ssize_t size):
    if code == BINARY:
        return PyBytes_FromStringAndSize(at, size)
    try:
        return PyUnicode_DecodeUTF8(at, size, NULL)
    except UnicodeDecodeError:
        return PyBytes_FromStringAndSize(at, size)


cdef object logical_object(int code, object value):
    """The logical value of a physical one that is a Python object."""
    if value is None:
        return None
    if code == BYTES or code == STR:
        if not PyBytes_Check(value):
            return value.decode()  # AttributeError, as in the twin
        return logical_bytes(code, PyBytes_AS_STRING(value), PyBytes_GET_SIZE(value))
    if code == BOOL:
        return bool(value)
    if code == DATE:
        return date_of(int(value))
    if code == DATETIME:
        return datetime_of(int(value))
    return value


# -- Python to cells -------------------------------------------------------

cdef int fill(int code, object value, Cell* cell) except -1:
    """A cell from a checked physical value; it borrows from ``value``."""
    cdef int overflow = 0
    cdef int64_t whole
    cell.is_null = 0
    if value is None:
        cell.is_null = 1
        cell.size = 0
        return 0
    if code == F64 or code == F32:
        cell.f = PyFloat_AsDouble(value)
        if code == F32:
            cell.f = <float>cell.f
        return 0
    if code == BYTES or code == STR or code == BINARY:
        if not PyBytes_Check(value):
            raise TypeError(f"a string's physical value is bytes, not {type(value).__name__}")
        cell.ptr = PyBytes_AS_STRING(value)
        cell.size = PyBytes_GET_SIZE(value)
        return 0
    value = PyNumber_Index(value)
    whole = PyLong_AsLongLongAndOverflow(value, &overflow)
    if code == U64 and overflow > 0:
        whole = <int64_t>PyLong_AsUnsignedLongLong(value)
    elif overflow or whole < LOW[code] or whole > HIGH[code]:
        raise OverflowError(f"{value} is out of range for dtype {code}")
    cell.i = whole
    return 0


cdef inline int plain_text(int code, Py_ssize_t limit, object value, Cell* cell) except -1:
    if PyUnicode_CheckExact(value):
        if code == BINARY:
            return 0
        if PyUnicode_IS_COMPACT_ASCII(value):
            cell.ptr = <const char*>PyUnicode_1BYTE_DATA(value)
            cell.size = PyUnicode_GET_LENGTH(value)
        else:
            try:
                cell.ptr = PyUnicode_AsUTF8AndSize(value, &cell.size)
            except UnicodeEncodeError:
                return 0
    elif PyBytes_CheckExact(value) and code != STR:
        cell.ptr = PyBytes_AS_STRING(value)
        cell.size = PyBytes_GET_SIZE(value)
    else:
        return 0
    return limit == 0 or cell.size <= limit


cdef inline int plain_moment(int code, object value, Cell* cell) except -1:
    cdef int64_t days, seconds
    if code == DATE:
        if not PyDate_CheckExact(value):
            return 0
        cell.i = days_of(date_year(value), date_month(value), date_day(value))
        return 1
    if not PyDateTime_CheckExact(value) or datetime_tzinfo(value) is not UTC:
        return 0
    days = days_of(datetime_year(value), datetime_month(value), datetime_day(value))
    seconds = days * 86400 + datetime_hour(value) * 3600 + datetime_minute(value) * 60 + datetime_second(value)
    cell.i = seconds * 1000000 + datetime_microsecond(value)
    return 1


cdef inline int plain(int code, Py_ssize_t limit, object value, Cell* cell) except -1:
    """Fill a cell from a value of a plain exact type that fits: 1, else 0. Runs no Python code."""
    cdef int overflow = 0
    cdef int64_t whole
    cdef float single
    cell.is_null = 0
    if PyLong_CheckExact(value):
        if code == DATE or code == DATETIME or LOW[code] == HIGH[code] or code == BOOL:
            return 0
        whole = PyLong_AsLongLongAndOverflow(value, &overflow)
        if overflow:
            if overflow < 0 or code != U64:
                return 0
            try:
                cell.i = <int64_t>PyLong_AsUnsignedLongLong(value)
            except OverflowError:
                return 0
            return 1
        cell.i = whole
        return LOW[code] <= whole <= HIGH[code]
    if PyFloat_CheckExact(value):
        cell.f = PyFloat_AS_DOUBLE(value)
        if code == F64:
            return 1
        if code != F32:
            return 0
        single = <float>cell.f
        if isinf(single) and not isinf(cell.f):
            return 0
        cell.f = single
        return 1
    if code == BYTES or code == STR or code == BINARY:
        return plain_text(code, limit, value, cell)
    if code == BOOL:
        if <PyObject*>value == Py_True:
            cell.i = 1
            return 1
        cell.i = 0
        return <PyObject*>value == Py_False
    if code == DATE or code == DATETIME:
        return plain_moment(code, value, cell)
    return 0
