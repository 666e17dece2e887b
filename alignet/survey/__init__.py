"""A survey about anybody's images: which is the odd one out, or what is an inverted image most like?

In: images, and a VICE posterior where questions are chosen by it (choose.py), or inverted images (matching.py). Out: a
page that needs no server (page.py) and survey.json, which stays behind; then, from the files that participants hand in,
triplets or choices and who was set aside (answers.py). Open first: survey.py.
"""
