"""Stage ``vap-anova``: compare the models over the folds, and draw the report."""
