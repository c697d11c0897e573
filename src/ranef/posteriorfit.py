class PosteriorFit: pass
