"""A survey of odd-one-out choices about anybody's images: which triplets to ask, the page, the answers."""
