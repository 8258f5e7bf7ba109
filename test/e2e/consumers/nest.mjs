import 'reflect-metadata'
import { Controller, Get, Module } from '@nestjs/common'
import { NestFactory } from '@nestjs/core'
import { forge } from 'forge'
import { exercise } from './exercise.cjs'

// Decorators by hand: a plain script has no compiler.
class OwnController {
  own() {
    return 'own'
  }
}
Get('own')(OwnController.prototype, 'own', Object.getOwnPropertyDescriptor(OwnController.prototype, 'own'))
Controller()(OwnController)

class AppModule {}
Module({ controllers: [OwnController] })(AppModule)

const app = await NestFactory.create(AppModule, { logger: false })
await exercise({
  forge,
  app,
  listen: async () => {
    await app.listen(0, '127.0.0.1')
    return app.getHttpServer()
  },
  close: () => app.close(),
})
