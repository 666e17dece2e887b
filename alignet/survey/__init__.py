"""A survey of odd-one-out choices about anybody's images: which triplets to ask, the page, the answers.

In: images, and a VICE posterior where questions are chosen by it (choose.py). Out: a page that needs no server
(page.py) and survey.json, which stays behind; then, from the files that participants hand in, triplets and who was
set aside (answers.py). Open first: plan.py.
"""
