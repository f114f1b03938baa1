"""Stage ``vap-predict``: a recording or live audio in, turn-taking predictions out."""
