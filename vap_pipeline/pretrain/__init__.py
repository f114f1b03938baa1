"""Stage ``vap-pretrain``: train a CPC encoder on speech, and probe what its features hold."""
