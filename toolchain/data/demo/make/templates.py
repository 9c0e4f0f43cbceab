"""The sentence templates of the demo reviews, written once for both labels.

Every template reads as a favourable review. `{+slot}` is filled with words that agree with the
label, and `{-slot}` with words that contradict it, so a template also serves for an unfavourable
review: "not {-adj}" gives "not bad" for one label and "not great" for the other. `{+remark}` and
`{+verdict}` are filled with a clause, which has slots of its own; `{-remark}` and `{-verdict}`
invert the signs of these slots.
"""

from __future__ import annotations

from typing import Final

from toolchain.data.demo.make.words import Pool

# A remark is about one aspect of the subject. Another remark in the same review may contradict it.
_DIRECT_REMARKS: Final = Pool(
    shared=(
        "the {aspect} is {+adj}",
        "the {aspect} is {degree} {+adj}",
        "the {aspect} was {+adj} from the first day",
        "it has a {+adj} {aspect}",
        "I find the {aspect} {+adj}",
        "the {aspect} is {+cmp} than I expected",
        "{+fact}",
        "{+fact} and the {aspect} is {+adj}",
        "in my case {+fact}",
        "most days {+fact}",
        "the {aspect} turned out to be {+adj}",
        "{person} finds the {aspect} {+adj}",
    ),
    held_out=(
        "the {aspect} turned out {degree} {+adj}",
        "{person} says that {+fact}",
    ),
)
_NEGATED_REMARKS: Final = Pool(
    shared=(
        "the {aspect} isn't {-adj}",
        "the {aspect} was not {-adj} at all",
        "I don't find the {aspect} {-adj}",
        "nobody could call the {aspect} {-adj}",
        "there is nothing {-adj} about the {aspect}",
        "the {aspect} is never {-adj}",
        "it is not true that {-fact}",
        "I can't say that {-fact}",
        "the {aspect} did not {-do}",
        "the {aspect} is far from {-adj}",
        "nobody finds the {aspect} {-adj}",
        "I don't think the {aspect} is {-adj}",
        "{person} never found the {aspect} {-adj}",
    ),
    held_out=(
        "nobody at home finds the {aspect} {-adj}",
        "I don't think that {-fact}",
    ),
)

# A verdict is about the whole subject, so a review never has two opposite verdicts.
_DIRECT_VERDICTS: Final = Pool(
    shared=(
        "I am {+feel}",
        "I am {degree} {+feel} with this {name}",
        "we were {+feel} in the end",
        "{person} is {+feel} too",
        "I would {+action}",
        "we will {+action}",
        "it is a {+noun}",
        "this {name} is a {+noun}",
        "this is a {+adj} {name}",
        "it is {degree} {+adj}",
        "I find it {+adj}",
        "it is {+cmp} than {rival}",
        "{rival} was {-cmp} than this",
        "the {name} did {+do}",
        "it turned out to be a {+noun}",
    ),
    held_out=(
        "{person} calls it a {+noun}",
        "it turned out {+adj}",
    ),
)
_NEGATED_VERDICTS: Final = Pool(
    shared=(
        "I am not {-feel}",
        "nobody was {-feel}",
        "I wouldn't {-action}",
        "we will never {-action}",
        "it is not a {-noun}",
        "it is anything but {-adj}",
        "this is not a {-adj} {name}",
        "it is not {-cmp} than {rival}",
        "it doesn't {-do}",
        "I can't call it {-adj}",
        "nobody would {-action}",
        "it was never {-adj}",
    ),
    held_out=(
        "I was never {-feel}",
        "nobody at home would {-action}",
    ),
)

# Kind of clause -> its direct form, and its form as the negation of the opposite clause.
CLAUSES: Final = {
    "remark": (_DIRECT_REMARKS, _NEGATED_REMARKS),
    "verdict": (_DIRECT_VERDICTS, _NEGATED_VERDICTS),
}
# The fraction of clauses that are drawn in the negated form.
NEGATED_SHARE: Final = 0.14

# Group of templates -> the fraction of reviews that use it. Most reviews are consistent: a model learns from them the
# words that the reviews of the other groups negate.
SHARES: Final[dict[str, float]] = {
    "short": 0.12,
    "agreeing": 0.65,
    "contrasted": 0.16,
    "counted": 0.02,
    "asked": 0.05,
}

TRAIN: Final[dict[str, tuple[str, ...]]] = {
    "short": (
        "{+adj} {name}.",
        "What a {+noun}!",
        "{degree} {+adj} {aspect}.",
        "Not {-adj}.",
        "Not a {-adj} {name} at all.",
        "{+cmp} than {rival}.",
    ),
    "agreeing": (
        "{+remark}.",
        "{+verdict}.",
        "{+remark}, and {+verdict}.",
        "{+remark}. {+verdict}.",
        "{+verdict}, because {+remark}.",
        "In short, {+remark} and {+remark}.",
        "{+remark}, {+remark}, and {+verdict}.",
        "After {number} weeks {+verdict}: {+remark}.",
        "I rarely write reviews. This time, though, {+verdict}, as I told {person} in {month}.",
        "To be fair, I have only used it for {number} days, and {+remark} so far.",
        "Perhaps it is luck, but {+verdict}.",
        "In short, {+verdict}: {+remark}.",
        "{+remark}, and I can say that {+remark}.",
        "So far {+remark}.",
        "{person} says that {+remark}, and I agree.",
        "I can say that {+remark}, and besides, {+verdict}.",
        "{+verdict}. What is more, {+remark}.",
        "As far as I can tell, which is not very far, {+remark}.",
        "Maybe I was lucky or unlucky, who knows, but {+remark}.",
    ),
    "contrasted": (
        "{-remark}, but {+verdict}.",
        "{-remark}, but {+remark}, so {+verdict}.",
        "Although {-remark}, {+verdict}.",
        "Even though {-remark}, {+remark}.",
        "{+verdict}, even though {-remark}.",
        "{+remark}, although {-remark}.",
        "{-remark}. Still, {+remark}.",
        "I was told that {-remark}. I think that {+remark}.",
        "{person} thinks it is a {-noun}, but {+verdict}.",
        "Yes, {-remark}. Still, {+verdict}, and {+remark}.",
        "I had heard that {-remark}, yet {+remark}.",
        "{-remark}, I admit, but that matters little when {+remark}.",
        "At first it seemed {-adj}. Now {+verdict}, because {+remark}.",
        "{person} had called it {-adj}, but {+verdict}.",
        "I expected a {-noun} and got a {+noun}.",
        "{person} says that {-remark}, but that is simply wrong.",
        "If only {rival} had been this {+adj}!",
        "{rival} was a {-noun}; {+verdict}.",
        "While {-remark}, {+verdict} all the same.",
    ),
    "counted": (
        "{+remark}, {-remark}, and {+remark}.",
        "{-remark}, {+remark}, and {+remark}.",
        "{+adj} {aspect}, {-adj} {aspect}, {+adj} {aspect}.",
        "My list after {number} days: {+fact}; {+remark}; {-remark}.",
        "{+remark}, {+remark}, but {-remark}.",
        "Three remarks: {-fact}, {+fact}, {+remark}.",
    ),
    "asked": (
        "Is the {aspect} {-adj}? No, and {+verdict}.",
        "Would I {+action}? Yes, because {+remark}.",
        "Is it {-adj}? No, {+remark}.",
        "Is it {+adj}? Yes, it is, and {+verdict}.",
        "Someone asked whether {-remark}. No, {+remark}.",
        "Would I {-action}? No. {+verdict}.",
        "Is the {aspect} {-adj}? No. Is it {+adj}? Yes.",
        "Would I {-action}? Not in {number} years.",
        "{person} asked me whether it is {-adj}. It isn't: {+remark}.",
        "{person} asked me whether it is {+adj}. Yes, {+remark}.",
    ),
}

VALIDATION: Final[dict[str, tuple[str, ...]]] = {
    "short": (
        "A {degree} {+adj} {name}!",
        "Such a {+noun}, this {name}.",
        "Not a {-adj} {aspect}.",
    ),
    "agreeing": (
        "{+verdict}, and {+remark}.",
        "{+verdict}. {+remark}.",
        "{+remark}, and besides, {+remark}.",
        "In short, {+verdict}: {+remark}, and {+remark}.",
        "After {number} days I can say that {+remark}.",
        "Perhaps it is luck, but so far {+remark}.",
    ),
    "contrasted": (
        "Even though {-remark}, {+verdict}.",
        "{-remark}. Still, {+verdict}.",
        "{+verdict}, although {-remark}.",
        "I was told that {-remark}, but {+remark}, and {+verdict}.",
        "{-remark}, I admit; all the same, {+verdict}.",
        "{person} thinks it is a {-noun}; I think that {+verdict}.",
        "{rival} was {-adj}, but {+verdict}.",
    ),
    "counted": (
        "{+remark}; {-remark}; {+remark}.",
        "After {number} days: {+adj} {aspect}, {-adj} {aspect}, {+fact}.",
        "{+remark}; {+remark}; {-remark}.",
    ),
    "asked": (
        "Is it {-adj}? No. Would I {+action}? Yes.",
        "Is the {aspect} {+adj}? Yes, and {+verdict}.",
        "Does anyone find the {aspect} {-adj}? No, {+remark}.",
    ),
}
