"""Few-shot examples, written for this library; no data set contains them."""

from jaxreason.tasks.problem import Problem

GRADE_SCHOOL = (
    Problem("Tom has 3 apples and buys 4 more. How many apples does he have?", "7", "3 + 4 = 7. #### 7", 0),
    Problem("A box holds 9 pens. 2 are taken out. How many are left?", "7", "9 - 2 = 7. #### 7", 1),
    Problem("Each of 6 bags holds 5 marbles. How many marbles are there?", "30", "6 * 5 = 30. #### 30", 2),
    Problem(
        "Mia saves 4 dollars a day for 5 days, then spends 8 dollars. How many dollars are left?",
        "12",
        "4 * 5 = 20. 20 - 8 = 12. #### 12",
        3,
    ),
)
