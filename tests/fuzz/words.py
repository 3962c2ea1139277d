"""Pieces that the input of each target is made of: chance alone seldom writes "1h 30m"."""

from collections.abc import Mapping

_JSON = ["{", "}", "[", "]", ":", ",", '"', "null", "true", "1", "-1", "1e400", "0.5", "NaN", " "]
_FIELDS = ['"state"', '"_id"', '"tags.a"', '"env.A"', '"requested_resources.custom.x"', '"seq"']
_OPERATORS = ['"$gt"', '"$in"', '"$where"', '"$expr"', '"$not"', '"$and"', '"$size"', '"$exists"']
_NUMBERS = ["0", "1", "9", "00", ".5", "1.5", "9999999999999999999", "-", "+", "1e3"]

WORDS: Mapping[str, list[str]] = {
    "resources": [*_JSON, '"memory"', '"cores"', '"gpus"', '"disk"', '"custom"', '"1 GiB"',
                  '"cpu_cores"', '"count"', '"percent"', '"min_compute_capability"', '"7.5"',
                  '"4 GiB\\n"', "2", "1e308", '"gpu_count"'],
    "sizes": [*_NUMBERS, " ", "GiB", "kB", "b", "bytes", "MIB", "\n", "K", "٣"],
    "durations": [*_NUMBERS, " ", "h", "m", "s", "ms", "d", "weeks", "P", "T", "PT", "H", "M",
                  "D", "W", ":", "00", "59", "60", "\n"],
    "times": ["2026", "-", "11", "22", "T", "10", ":", "00", ".123", "Z", "+01:00", "-23:59",
              "Sun, ", " Nov ", " GMT", "0000", "9999", "12-31", "23:59:60", "1"],
    "filters": [*_JSON, *_FIELDS, *_OPERATORS, '"a\\u0000"', '"2026-11-22"', '"' + "0" * 24 + '"'],
    "shown_fields": [*_JSON, *_FIELDS, "-priority", "name", "state", '"priority"', "$where"],
    "pages": [*_NUMBERS, "10", "²", " "],
    "prefer": ["wait", "=", "10", '"', ";", ",", " ", "return=minimal", "0.5", "WAIT", "1e9"],
    "tokens": ["Bearer ", "Basic ", "att_", "bny_", "_", "0" * 24, "a" * 64, "YXR0Xw==", "é"],
    "bodies": [*_JSON, '"a"', "9223372036854775808", '"\\ud800"', '"\\u0000"', "[" * 20,
               "Infinity"],
    "proxies": ["10.0.0.1", ",", " ", "::1", "2001:db8::1", "%eth0", "unknown", "::ffff:1.2.3.4"],
    "retention": ["a", "=", "1 day", "forever", ",", " ", "999999999999 weeks"],
    "output": ["::progress ", "40", "/", "100", " message", "\n", "\0\0\0\0\x05", "\x01", "1" * 15],
}  # fmt: skip
