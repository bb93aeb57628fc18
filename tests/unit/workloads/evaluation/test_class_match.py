"""Outputs and classes whose names differ are found and explained."""

import pytest

from workloads.evaluation.class_match import refuse_other_classes
from workloads.evaluation.errors import EvaluationError

ANIMALS = ["ant", "bee", "cat", "dog", "emu", "fox", "gnu", "hen"]


def refusal(check, *args, **options):
    with pytest.raises(EvaluationError) as caught:
        check(*args, **options)
    return str(caught.value)


def names_refusal(data, names):
    return refusal(
        refuse_other_classes, data, num_outputs=len(names), names=names, origin="the training"
    )


@pytest.mark.parametrize("names", [ANIMALS, None])
def test_the_same_classes_are_fine(names):
    refuse_other_classes(ANIMALS, num_outputs=8, names=names, origin="x")


def test_another_order_names_the_first_differing_outputs():
    names = ["ant", "cat", "bee", *ANIMALS[3:]]
    text = names_refusal(ANIMALS, names)
    assert "the same 8 classes in another order" in text
    assert "output 1: 'cat', the data's class 1: 'bee'" in text
    assert "output 2: 'bee', the data's class 2: 'cat'" in text
    assert "output 0" not in text
    assert "\n" not in text.strip()  # the first line of a reason is what status shows
    assert "output 3" not in text
    assert "rename the folders" in text


def test_long_lists_are_cut():
    text = names_refusal(ANIMALS, ANIMALS[::-1])
    assert "(reversed)" in text
    assert "and 3 more" in text
    assert "output 5" not in text


def test_numbers_sorted_as_text_are_recognised():
    numbers = [str(i) for i in range(12)]
    text = names_refusal(sorted(numbers), numbers)
    assert "the data's sorted as text, 10 before 2" in text
    assert "the weights' sorted as text" in names_refusal(numbers, sorted(numbers))


def test_capitals_are_recognised():
    data = ["Bee", "ant", "cat"]  # as folders sort
    assert "regard to capitals" in names_refusal(data, ["ant", "Bee", "cat"])
    assert "regard to capitals" in names_refusal(["ant", "Bee", "cat"], data)
    assert "regard to capitals" not in names_refusal(data, ["cat", "ant", "Bee"])
    assert "regard to capitals" not in names_refusal(["0", "1", "2"], ["0", "2", "1"])


def test_other_classes_are_named_on_both_sides():
    text = names_refusal(ANIMALS, [*ANIMALS[:6], "yak", "zebu"])
    assert "only the data has 'gnu', 'hen'" in text
    assert "only the weights have 'yak', 'zebu'" in text


def test_a_number_of_outputs_that_differs():
    text = refusal(
        refuse_other_classes, ANIMALS, num_outputs=1000, names=None, origin="the training"
    )
    assert "1000 outputs and the data 8 classes" in text
    assert "ImageNet" in text


def test_the_background_class_of_tensorflow_is_recognised():
    text = refusal(refuse_other_classes, ANIMALS, num_outputs=9, names=None, origin="x")
    assert "background class as output 0" in text


def test_names_that_do_not_fit_the_network():
    text = refusal(refuse_other_classes, ANIMALS, num_outputs=5, names=ANIMALS, origin="x")
    assert "names 8 classes, and the network has 5 outputs" in text
