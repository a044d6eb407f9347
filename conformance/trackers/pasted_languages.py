"""How five languages write a test: literals, calls and assertions."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from conformance.trackers.candidate import OnlineRules


@dataclass(frozen=True)
class Question:
    """A call of the test: its kind and arguments, its number, and the one whose state it goes on from."""

    kind: str
    arguments: tuple[Any, ...]
    number: int
    state_from: int | None


@dataclass(frozen=True)
class Value:
    """What is expected, within ``within`` if that is not 0."""

    expected: Any
    within: float = 0.0


class Refused:
    """An error is expected."""


@dataclass(frozen=True)
class Assertion:
    """What is expected at a path into the last answer; ``of`` is "length" or nothing."""

    path: str
    expected: Value | Refused
    of: str = ""


class Language:
    """Python's syntax; the others say what they write otherwise."""

    opening, closing = "[", "]"
    true, false, nothing = "True", "False", "None"
    not_a_number, infinity = "nan", "inf"
    comment = "#"
    end = ""
    camel = False
    intro = "import numpy as np\nimport pytest\nfrom math import inf, nan\n\n\n"

    def test(self, name: str, message: str, questions: Sequence[Question], assertion: Assertion) -> str:
        """The whole test."""
        *before, last = questions
        lines = [self.statement(one) for one in before]
        if isinstance(assertion.expected, Refused):
            lines.append(self.raises(self.call(last)))
        else:
            lines += [self.statement(last), self.assertion(last, assertion, assertion.expected)]
        said = [f"{self.comment} {line}" for line in _wrapped(message)]
        return self.intro + "\n".join(
            [*self.head(name), *(f"    {line}" for line in [*said, *lines]), *self.foot()]
        )

    def head(self, name: str) -> list[str]:
        """Open the test."""
        return [f"def test_{name}():"]

    def foot(self) -> list[str]:
        """Close the test."""
        return []

    def statement(self, question: Question) -> str:
        """One call whose answer is kept."""
        return f"answer{question.number} = {self.call(question)}{self.end}"

    def raises(self, call: str) -> str:
        """The assertion that a call fails."""
        return f"with pytest.raises(Exception):\n        {call}"

    def assertion(self, question: Question, assertion: Assertion, value: Value) -> str:
        """The assertion of a value."""
        found = self.path(question, assertion)
        if value.within:
            return self.close(found, self.literal(value.expected), value.within)
        return self.equal(found, self.literal(value.expected))

    def path(self, question: Question, assertion: Assertion) -> str:
        """The expression for what is looked at."""
        whole = f"answer{question.number}" + (f".{assertion.path}" if assertion.path else "")
        return self.length(whole) if assertion.of == "length" else whole

    def length(self, listed: str) -> str:
        """The length of a list."""
        return f"len({listed})"

    def equal(self, found: str, expected: str) -> str:
        """The assertion of equality."""
        if expected.startswith("["):
            return f"assert np.asarray({found}).tolist() == {expected}"
        return f"assert {found} == {expected}"

    def close(self, found: str, expected: str, within: float) -> str:
        """The assertion of closeness."""
        return f"assert {found} == pytest.approx({expected}, abs={within})"

    def call(self, question: Question) -> str:
        """Ask the tracker."""
        if question.kind == "associate":
            return f"associate({', '.join(self.array(one) for one in question.arguments)})"
        frames, rules, _ = question.arguments
        state = self.nothing if question.state_from is None else f"answer{question.state_from}.state"
        listed = self.opening + ", ".join(self.frame(frame) for frame in frames) + self.closing
        return f"{question.kind}({listed}, {self.rules(rules)}, {state})"

    def rules(self, rules: OnlineRules | int) -> str:
        """The keyframe interval, and the thresholds of an online tracker."""
        if not isinstance(rules, OnlineRules):
            return str(rules)
        weighed = self.true if rules.rescore else self.false
        return f"{rules.keyframe_interval}, {rules.birth}, {rules.death}, {weighed}"

    def frame(self, frame: Any) -> str:
        """One frame; what it lacks is nothing."""
        parts = [getattr(frame, name) for name in vars(frame)]
        written = (self.nothing if part is None else self.array(part) for part in parts)
        return f"Frame({', '.join(written)})"

    def array(self, array: Any) -> str:
        """A literal array."""
        return f"np.array({self.literal(np.asarray(array).tolist())}, float)"

    def literal(self, value: Any) -> str:
        """A literal of any kind."""
        if isinstance(value, list):
            return self.opening + ", ".join(self.literal(one) for one in value) + self.closing
        if value is None:
            return self.nothing
        if isinstance(value, bool):
            return self.true if value else self.false
        return self.number(value)

    def number(self, value: float) -> str:
        """A literal number."""
        if np.isnan(value):
            return self.not_a_number
        if np.isinf(value):
            return self.infinity if value > 0 else f"-{self.infinity}"
        return repr(value)


class JavaScript(Language):
    """The test runner of Node.js."""

    true, false, nothing = "true", "false", "null"
    not_a_number, infinity = "NaN", "Infinity"
    comment, end = "//", ";"
    intro = 'const test = require("node:test");\nconst assert = require("node:assert");\n\n'

    def head(self, name: str) -> list[str]:
        return [f'test("{name}", () => {{']

    def foot(self) -> list[str]:
        return ["});"]

    def statement(self, question: Question) -> str:
        return "const " + super().statement(question)

    def raises(self, call: str) -> str:
        return f"assert.throws(() => {call});"

    def length(self, listed: str) -> str:
        return f"{listed}.length"

    def equal(self, found: str, expected: str) -> str:
        return f"assert.deepStrictEqual({found}, {expected});"

    def close(self, found: str, expected: str, within: float) -> str:
        return f"assert.ok(Math.abs({found} - {expected}) < {within});"

    def array(self, array: Any) -> str:
        return self.literal(np.asarray(array).tolist())

    def frame(self, frame: Any) -> str:
        named = {name: getattr(frame, name) for name in vars(frame)}
        written = (f"{name}: {self.array(part)}" for name, part in named.items() if part is not None)
        return f"{{ {', '.join(written)} }}"


class Cpp(Language):
    """GoogleTest; kernels are ``std::vector<std::vector<double>>``."""

    opening, closing = "{", "}"
    true, false, nothing = "true", "false", "{}"
    not_a_number, infinity = "NAN", "INFINITY"
    comment, end = "//", ";"
    intro = (
        "#include <cmath>\n#include <vector>\n#include <gtest/gtest.h>\n\n"
        "using Kernels = std::vector<std::vector<double>>;\n"
        "using Maps = std::vector<std::vector<std::vector<double>>>;\n\n"
    )

    def head(self, name: str) -> list[str]:
        return [f"TEST(Tracker, {_camel(name)}) {{"]

    def foot(self) -> list[str]:
        return ["}"]

    def statement(self, question: Question) -> str:
        return "auto " + super().statement(question)

    def raises(self, call: str) -> str:
        return f"EXPECT_ANY_THROW({call});"

    def length(self, listed: str) -> str:
        return f"{listed}.size()"

    def equal(self, found: str, expected: str) -> str:
        if expected.startswith("{"):
            return f"EXPECT_EQ({found}, (std::vector<int>{expected}));"
        return f"EXPECT_EQ({found}, {expected});"

    def close(self, found: str, expected: str, within: float) -> str:
        return f"EXPECT_NEAR({found}, {expected}, {within});"

    def array(self, array: Any) -> str:
        listed = np.asarray(array)
        kind = {2: "Kernels", 3: "Maps"}[listed.ndim]
        return f"{kind}{self.literal(listed.tolist())}"

    def frame(self, frame: Any) -> str:
        return super().frame(frame).replace("Frame(", "Frame{", 1)[:-1] + "}"


class Kotlin(Language):
    """kotlin.test; kernels are ``List<List<Double>>``."""

    opening, closing = "listOf(", ")"
    true, false, nothing = "true", "false", "null"
    not_a_number, infinity = "Double.NaN", "Double.POSITIVE_INFINITY"
    comment = "//"
    intro = "import kotlin.test.*\n\n"

    def head(self, name: str) -> list[str]:
        return ["@Test", f"fun {_camel(name, first=False)}() {{"]

    def foot(self) -> list[str]:
        return ["}"]

    def statement(self, question: Question) -> str:
        return "val " + super().statement(question)

    def raises(self, call: str) -> str:
        return f"assertFails {{ {call} }}"

    def length(self, listed: str) -> str:
        return f"{listed}.size"

    def equal(self, found: str, expected: str) -> str:
        return f"assertEquals({expected}, {found})"

    def close(self, found: str, expected: str, within: float) -> str:
        return f"assertTrue(Math.abs({found} - {expected}) < {within})"

    def array(self, array: Any) -> str:
        listed = np.asarray(array)
        # Without elements there is nothing to tell the type by.
        return self.literal(listed.tolist()) if listed.size else "emptyList()"


class Swift(JavaScript):
    """XCTest; kernels are ``[[Double]]``."""

    nothing = "nil"
    not_a_number, infinity = "Double.nan", "Double.infinity"
    end = ""
    intro = "import XCTest\n\n"

    def head(self, name: str) -> list[str]:
        return ["final class TrackerTest: XCTestCase {", f"  func test{_camel(name)}() throws {{"]

    def foot(self) -> list[str]:
        return ["  }", "}"]

    def statement(self, question: Question) -> str:
        return "let " + Language.statement(self, question).replace("= ", "= try ", 1)

    def raises(self, call: str) -> str:
        return f"XCTAssertThrowsError(try {call})"

    def length(self, listed: str) -> str:
        return f"{listed}.count"

    def equal(self, found: str, expected: str) -> str:
        return f"XCTAssertEqual({found}, {expected})"

    def close(self, found: str, expected: str, within: float) -> str:
        return f"XCTAssertEqual({found}, {expected}, accuracy: {within})"

    def frame(self, frame: Any) -> str:
        named = {name: getattr(frame, name) for name in vars(frame)}
        written = (
            f"{_camel(name, first=False)}: {self.nothing if part is None else self.array(part)}"
            for name, part in named.items()
        )
        return f"Frame({', '.join(written)})"


LANGUAGES: dict[str, Language] = {
    "cpp": Cpp(),
    "javascript": JavaScript(),
    "kotlin": Kotlin(),
    "python": Language(),
    "swift": Swift(),
}


def _camel(name: str, first: bool = True) -> str:
    joined = "".join(part.capitalize() for part in name.split("_"))
    return joined if first else joined[:1].lower() + joined[1:]


def _wrapped(message: str) -> list[str]:
    """The message in lines that fit, without anything that ends a comment."""
    clean = re.sub(r"\s+", " ", message)
    return [clean[start : start + 100] for start in range(0, min(len(clean), 400), 100)]
