from sandboxd.model import Decision, Verdict
from sandboxd.policy.rego_answers import MAX_ANSWERS, MAX_QUESTION_BYTES, Answers

ALLOW = Decision(Verdict.ALLOW, (), "r")
DENY = Decision(Verdict.DENY, (), "r")


def test_each_question_has_its_own_answer() -> None:
    answers = Answers()
    answers.keep(b"1", ALLOW)
    answers.keep(b"1.0", DENY)
    assert (answers.to(b"1"), answers.to(b"1.0"), answers.to(b"2")) == (ALLOW, DENY, None)


def test_of_too_many_the_one_that_was_not_used_for_longest_goes() -> None:
    answers = Answers()
    for number in range(MAX_ANSWERS):
        answers.keep(b"%d" % number, ALLOW)
    answers.to(b"0")
    answers.keep(b"one more", DENY)
    assert (answers.to(b"0"), answers.to(b"1"), answers.to(b"one more")) == (ALLOW, None, DENY)


def test_long_questions_and_answers_are_not_kept() -> None:
    answers = Answers()
    answers.keep(b"q" * (MAX_QUESTION_BYTES + 1), ALLOW)
    answers.keep(b"q", Decision(Verdict.ALLOW, (), "r", message_for_agent="m" * 100_000))
    assert (answers.to(b"q" * (MAX_QUESTION_BYTES + 1)), answers.to(b"q")) == (None, None)
