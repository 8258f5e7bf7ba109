const express = require('express')
const { forge } = require('forge')
const { exercise, listenOn } = require('./exercise.cjs')

const app = express()
app.get('/own', (request, response) => response.send('own'))
void exercise({ forge, app, listen: listenOn(app) })
