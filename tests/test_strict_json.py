"""JSON with limits that every reader can hold, and numbers that keep their text."""

from __future__ import annotations

import json

import pytest

from ws_manager.errors import InvalidInput
from ws_manager.strict_json import (
    MAX_DEPTH,
    MAX_DIGITS,
    Json,
    NotJson,
    checked,
    checked_object,
    decode_json,
    encode,
    is_beyond_limits,
    is_json,
    members,
)

LISTS = "[" * MAX_DEPTH + "]" * MAX_DEPTH
OBJECTS = '{"a":' * MAX_DEPTH + "0" + "}" * MAX_DEPTH
# The largest double is 1.7976931348623157e308.
LARGEST = "179769313486231570" + "0" * 291
NOT_JSON = [
    "",
    " ",
    "{",
    "]",
    "[}",
    "{]",
    "[1,]",
    "[,1]",
    "[1 2]",
    '{"a"}',
    '{"a":}',
    '{"a":1,}',
    "{1:2}",
    '{"a" 1}',
    '{"a":1 "b":2}',
    "1 2",
    "01",
    "+1",
    "1.",
    ".5",
    "1e",
    "-",
    "tru",
    "True",
    "'a'",
    '"a',
    '"\\x"',
    '"\\u12"',
    '"\n"',
    "hello",
    "\ufeff1",
    "[1]\x00",
]
"""Texts that are not JSON, each in another way."""

VALUES = [
    "null",
    "true",
    "0",
    "-0",
    "1.10",
    "77950e8",
    "1E+2",
    "1e-400",
    LARGEST,
    "0." + "0" * (MAX_DIGITS - 1),
    '"text"',
    '"[{,:"',
    "[]",
    "{}",
    '[1,[2,{"a":[]}],"]"]',
    '{"a":{"b":"}"},"c":[{}]}',
    LISTS,
    OBJECTS,
]
"""Compact JSON texts that are accepted."""


def nested(depth: int) -> object:
    value: object = 0
    for _ in range(depth):
        value = [value]
    return value


class TestChecked:
    @pytest.mark.parametrize("text", VALUES, ids=lambda text: text[:20])
    def test_keeps_what_is_compact_as_it_is(self, text: str) -> None:
        assert checked(text, "message") == text

    def test_takes_white_space_out_between_tokens_alone(self) -> None:
        assert checked(' {\t"a b" :\r\n[ 1.10 , "c  d" ] } ', "message") == '{"a b":[1.10,"c  d"]}'

    def test_takes_escapes_out_so_that_a_search_finds_the_text(self) -> None:
        assert checked('{"\\u00fc":"\\ud83d\\ude00\\/\\n\\"\\\\ "}', "message") == '{"ü":"😀/\\n\\"\\\\ "}'

    @pytest.mark.parametrize("text", NOT_JSON)
    def test_what_is_not_json(self, text: str) -> None:
        with pytest.raises(NotJson, match="the message is not JSON"):
            checked(text, "message")

    @pytest.mark.parametrize("text", ["NaN", "[Infinity]", "-Infinity"])
    def test_what_only_python_calls_json(self, text: str) -> None:
        with pytest.raises(InvalidInput, match="is not a JSON value") as raised:
            checked(text, "message")
        assert not isinstance(raised.value, NotJson)

    @pytest.mark.parametrize(
        "text", [f"[{LISTS}]", f"[{OBJECTS}]", "[" * 200_000, '{"a":' * 200_000, "[" * 980 + "]" * 980]
    )
    def test_nesting_over_the_limit(self, text: str) -> None:
        with pytest.raises(InvalidInput, match="deeper than 100 levels"):
            checked(text, "message")

    def test_brackets_in_a_text_are_no_nesting(self) -> None:
        text = json.dumps(['{["\\' * 200])
        assert checked(text, "message") == text

    def test_many_brackets_beside_each_other_are_no_nesting(self) -> None:
        text = f"[{','.join(['[]'] * 300)}]"
        assert checked(text, "message") == text

    def test_the_envelope_does_not_count(self) -> None:
        assert decode_json(f'{{"content":{LISTS}}}', "frame", envelope=1)["content"]

    @pytest.mark.parametrize(
        "text", ["1e400", "-4e98765", "[1, 1e309]", '{"x":1e400}', "9" * 309, f"{'1' * 300}e10", "1" * 1000]
    )
    def test_numbers_beyond_a_double(self, text: str) -> None:
        with pytest.raises(InvalidInput, match="too large for a double") as raised:
            checked(text, "message")
        assert "quote it" in str(raised.value.hint)

    def test_hint_says_what_to_quote(self) -> None:
        with pytest.raises(InvalidInput) as raised:
            checked('{"id":4e98765}', "message")
        assert '"4e98765"' in str(raised.value.hint)
        assert "4e98765" not in raised.value.message

    @pytest.mark.parametrize("text", ["0." + "1" * MAX_DIGITS, "1" * 5000, f"[-0.{'0' * MAX_DIGITS}e-1]"])
    def test_numbers_of_too_many_digits(self, text: str) -> None:
        with pytest.raises(InvalidInput, match="more than 1000 digits"):
            checked(text, "message")

    def test_digits_in_a_text_are_no_number(self) -> None:
        assert checked(f'"{"1" * 5000}"', "message")

    @pytest.mark.parametrize("text", ['{"a":1,"a":2}', '[{"b":{"a":1,"\\u0061":1}}]'])
    def test_a_key_twice(self, text: str) -> None:
        with pytest.raises(InvalidInput, match="a key twice") as raised:
            checked(text, "message")
        assert '"a"' in str(raised.value.hint)

    @pytest.mark.parametrize("text", ['"\\ud800"', '{"\\udc00":1}', '["\\ud800 \\ud800"]'])
    def test_half_of_a_surrogate_pair(self, text: str) -> None:
        with pytest.raises(InvalidInput, match="surrogate"):
            checked(text, "message")

    def test_a_text_without_an_end_takes_no_quadratic_time(self) -> None:
        # 10 minutes, if each escaped quote were taken for the beginning of a string.
        with pytest.raises(InvalidInput):
            checked("[" * 101 + '"' + '\\"' * 500_000, "message")

    def test_object(self) -> None:
        assert checked_object('{"v": 1.10}', "metadata") == '{"v":1.10}'

    @pytest.mark.parametrize("text", ["[]", "1", '"{}"', "null"])
    def test_what_is_not_an_object(self, text: str) -> None:
        with pytest.raises(InvalidInput, match="metadata must be a JSON object"):
            checked_object(text, "metadata")


class TestDecode:
    def test_value(self) -> None:
        assert decode_json('{"a": [1, 1.5, null]}', "message") == {"a": [1, 1.5, None]}

    def test_a_reader_may_let_a_key_be_there_twice(self) -> None:
        assert decode_json('{"a":1,"a":2}', "frame", duplicates=True) == {"a": 2}


class TestEncode:
    def test_json_stays_as_it_is(self) -> None:
        assert encode(Json('{"v":1.10}'), "message") == '{"v":1.10}'

    def test_any_other_text_becomes_a_json_string(self) -> None:
        assert encode('{"v":1.10}', "message") == '"{\\"v\\":1.10}"'

    def test_deepest(self) -> None:
        assert encode(nested(MAX_DEPTH), "message") == LISTS.replace("[]", "[0]")

    @pytest.mark.parametrize("depth", [MAX_DEPTH + 1, 980, 200_000])
    def test_deeper(self, depth: int) -> None:
        with pytest.raises(InvalidInput, match="deeper than 100 levels"):
            encode(nested(depth), "message")

    @pytest.mark.parametrize("number", [10**309, -(10**400), [2**1024]])
    def test_numbers_beyond_a_double(self, number: object) -> None:
        with pytest.raises(InvalidInput, match="too large for a double"):
            encode(number, "message")

    @pytest.mark.parametrize("digits", [1001, 5000])
    def test_numbers_of_too_many_digits(self, digits: int) -> None:
        with pytest.raises(InvalidInput, match="more than 1000 digits"):
            encode(10**digits, "message")


class TestMembers:
    def test_are_the_texts_of_an_object(self) -> None:
        text = ' { "a" : 1.10 , "b":[{"}":"]"}] ,"\\u0063":"x,\\"y", "d":{ }, "e":null} '
        assert members(text) == {
            "a": "1.10",
            "b": '[{"}":"]"}]',
            "c": '"x,\\"y"',
            "d": "{ }",
            "e": "null",
        }

    @pytest.mark.parametrize("depth", [1000, 200_000])
    def test_however_deep_they_nest(self, depth: int) -> None:
        deep = "[" * depth + "]" * depth
        assert members(f'{{"seq":1,"content":{deep},"type":"message"}}') == {
            "seq": "1",
            "content": deep,
            "type": '"message"',
        }

    def test_a_key_twice(self) -> None:
        with pytest.raises(InvalidInput, match="a key twice"):
            members('{"to":"a","to":"b"}')

    @pytest.mark.parametrize("text", ["", "[]", "1", "{}", '{"a', '{"\\x":1}'])
    def test_what_has_none(self, text: str) -> None:
        assert members(text) == {}


class TestStoredText:
    @pytest.mark.parametrize("text", VALUES, ids=lambda text: text[:20])
    def test_within_the_limits(self, text: str) -> None:
        assert not is_beyond_limits(text)

    @pytest.mark.parametrize(
        "text",
        [f"[{LISTS}]", "1e400", '["1",-2e999]', "9" * 309, f"0.{'1' * MAX_DIGITS}e1", f"{'1' * 300}.0e10"],
        ids=lambda text: text[:20],
    )
    def test_beyond_them(self, text: str) -> None:
        assert is_beyond_limits(text)

    def test_what_another_program_wrote_is_no_matter_of_limits(self) -> None:
        assert not is_beyond_limits("1e+e+1 1.1e9.1.1")

    @pytest.mark.parametrize(
        "text", [*VALUES, "1e400", "[" * 200_000 + "]" * 200_000, "1" * 5000, ' [ 1 , {"a" : 2} ] ']
    )
    def test_is_json(self, text: str) -> None:
        assert is_json(text)

    @pytest.mark.parametrize("text", [*NOT_JSON, "NaN", "-Infinity", "[" * 200_000])
    def test_is_not_json(self, text: str) -> None:
        assert not is_json(text)
